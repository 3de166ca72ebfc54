// Keeps what is marked `data-live` current, and lets the keyboard reach every page. Without this
// script all pages work; they are as old as their load.

const SLOW_MS = 5000;
const SOON_MS = 1000;

// Swaps the parts of the page that have changed. What holds the focus is left alone, unless the
// same link or button is found again.
async function refresh() {
  const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw new Error(answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (now && now.outerHTML !== old.outerHTML && !old.contains(document.activeElement)) {
      old.replaceWith(document.importNode(now, true));
    }
  }
}

async function keepCurrent() {
  const stale = document.getElementById("stale");
  for (;;) {
    const wait = document.querySelector("[data-soon]") ? SOON_MS : SLOW_MS;
    await new Promise((done) => setTimeout(done, wait));
    if (document.hidden) continue;
    try {
      await refresh();
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }
}

// `/` goes to the search, `g` and a letter to a page.
let asked = false;
function press(event) {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    document.getElementById("find").focus();
    event.preventDefault();
  } else if (asked) {
    const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) link.click();
  }
  asked = event.key === "g" && !asked;
}

document.addEventListener("keydown", press);
// A page that answers a form cannot be asked for again: what it shows is shown once.
if (document.querySelector("[data-live]") && !document.querySelector("[data-once]")) keepCurrent();
