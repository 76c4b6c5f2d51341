// What all pages share: keys to move about, questions before what cannot be undone, copying.
// Without it everything is still there.

const pages = { o: "/", t: "/traces", p: "/playground", h: "/pool", b: "/keys" };
let waitsForPage = false;

function isTyping(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

function step(by) {
  const links = [...document.querySelectorAll("[data-list] a")];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (waitsForPage) {
    waitsForPage = false;
    if (pages[event.key]) location.assign(pages[event.key]);
    return;
  }
  const search = document.querySelector("[data-search]");
  if (event.key === "g") waitsForPage = true;
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") {
    event.preventDefault();
    if (search) search.select();
    else location.assign("/traces");
  }
});

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // not allowed without TLS: select it at least
    }
  });
}
