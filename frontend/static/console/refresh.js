// Work is under way on this page: look again every two seconds, unless somebody is looking elsewhere.
setInterval(() => {
  if (!document.hidden) location.reload();
}, 2000);
