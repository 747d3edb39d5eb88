// The form of an import: only the fields that the chosen source has a use for.
const FIELDS = {
  folder: ["labels", "categories", "part"],
  archive: ["archive", "labels", "categories", "part"],
  upload: ["archive", "split"],
  download: ["split"],
  cifar100: ["split"],
  sample: [],
};
const source = document.querySelector("#id_source");
const layouts = document.querySelector(".layouts");

function show() {
  const wanted = FIELDS[source.value] ?? [];
  for (const name of ["archive", "labels", "categories", "part", "split"]) {
    const row = document.querySelector(`.field-${name}`);
    if (row) row.hidden = !wanted.includes(name);
  }
  if (layouts) layouts.hidden = !wanted.includes("labels");
}

source.addEventListener("change", show);
show();
