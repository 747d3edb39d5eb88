// Small pictures are enlarged pixel by pixel; large ones are made smaller smoothly.
const settle = (picture) => picture.classList.toggle("enlarged", picture.naturalWidth < picture.clientWidth);

for (const picture of document.querySelectorAll("img.picture")) {
  if (picture.complete) settle(picture);
  else picture.addEventListener("load", () => settle(picture), { once: true });
}
