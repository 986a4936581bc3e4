// Keeps a page up to date, and opens confirmations in place. Without it, everything works by loading pages.
"use strict";

(() => {
  const PERIOD_MS = 2000;
  const connection = document.getElementById("connection");
  const announcer = document.getElementById("announcer");
  const dialog = document.getElementById("dialog");

  // What can be stood on, and how it is found again in another drawing of the same page: by what it is and does, not by its
  // place, where something else may be by then.
  const stops = (part) => [...part.querySelectorAll("a, button, input, summary")];
  const known = (stop) => [
    stop.tagName, stop.getAttribute("href"), stop.name, stop.form?.action, stop.getAttribute("aria-label"), stop.textContent,
  ].join("\n");
  const place = (part, stop) => {
    const same = stops(part).filter((other) => known(other) === known(stop));
    return { name: known(stop), number: same.indexOf(stop) };
  };
  const focusAgain = (part, { name, number }) => {
    const same = stops(part).filter((stop) => known(stop) === name);
    const found = same[number] ?? same[0];
    // What is gone leaves whoever stood on it where it was, not at the top of the page.
    if (!found) part.tabIndex = -1;
    (found ?? part).focus({ preventScroll: true });
  };

  const parse = (text) => new DOMParser().parseFromString(text, "text/html");

  // --- Up to date -------------------------------------------------------------------------------------------------------

  // Puts what has changed in its place, and leaves alone what somebody reads, types into or stands on.
  const adopt = (fresh) => {
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === part.dataset.shown) continue;
      const selection = document.getSelection();
      if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) continue;
      const opened = [...part.querySelectorAll("details")].map((details) => details.open);
      const focused = part.contains(document.activeElement) && part !== document.activeElement
        ? place(part, document.activeElement) : null;
      const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      part.dataset.shown = next.innerHTML;
      part.replaceChildren(...document.importNode(next, true).childNodes);
      part.querySelectorAll("details").forEach((details, index) => { details.open = opened[index] ?? details.open; });
      part.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
      if (focused) focusAgain(part, focused);
    }
    // What somebody has typed stays, also from before this script was there to hear of it.
    const field = document.getElementById("percentage");
    const next = fresh.getElementById("percentage");
    if (field && next && field.value === field.defaultValue && field !== document.activeElement) {
      field.defaultValue = next.value;
      field.value = next.value;
      field.dispatchEvent(new Event("refreshed"));
    }
    document.title = fresh.title;
  };

  const tell = (text, lost) => {
    if (!connection) return;
    connection.hidden = false;
    connection.classList.toggle("lost", Boolean(lost));
    if (connection.textContent !== text) connection.textContent = text;
  };

  let busy = false;
  let again = false;
  let over = false;
  const refresh = async () => {
    if (over) return;
    if (busy) { again = true; return; }
    busy = true;
    try {
      // What was asked in the explain box stays as it is answered.
      const response = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
      if (new URL(response.url).pathname === "/login") {
        over = true;
        tell("logged out: load the page anew", true);
      } else if (response.ok) {
        adopt(parse(await response.text()));
        tell("live");
      } else {
        tell(`the gateway answers ${response.status}`, true);
      }
    } catch {
      tell("no connection: what is shown may be old", true);
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  };

  if (document.body.dataset.live) {
    setInterval(() => { if (!document.hidden) refresh(); }, PERIOD_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
    const events = new EventSource("/live");
    events.addEventListener("change", (message) => {
      const { flag, action, actor, new: now } = JSON.parse(message.data);
      announcer.textContent = `${flag}: ${action} by ${actor}, ${now.phase.replace("_", " ")}, canary at ${now.percentage} %`;
      refresh();
    });
    refresh();
  }

  // --- The slider and its number ------------------------------------------------------------------------------------------

  const slider = document.getElementById("slider");
  const number = document.getElementById("percentage");
  if (slider && number) {
    slider.hidden = false;
    slider.addEventListener("input", () => { number.value = slider.value; });
    number.addEventListener("input", () => { slider.value = number.value; });
    number.addEventListener("refreshed", () => { slider.value = number.value; });
  }

  // --- Confirmations in place ----------------------------------------------------------------------------------------------

  // What is outside of an open dialog is told to nobody, and may be drawn anew meanwhile.
  let opener = null;
  dialog.addEventListener("close", () => {
    document.body.append(announcer);
    if (opener && !opener.part.contains(document.activeElement)) focusAgain(opener.part, opener.place);
    opener = null;
  });

  const ask = async (url) => {
    const from = document.activeElement;
    const part = from?.closest("[data-part]");
    const response = await fetch(url, { headers: { accept: "text/html" } });
    const asked = parse(await response.text()).getElementById("confirm");
    if (!asked) throw new Error("no confirmation");
    opener = part && part !== from ? { part, place: place(part, from) } : null;
    dialog.replaceChildren(document.importNode(asked, true), announcer);
    dialog.showModal();
    (dialog.querySelector("input:not([type=hidden])") ?? dialog).focus();
  };

  const instead = (event, url) => {
    event.preventDefault();
    // Whatever goes wrong, the page itself can ask.
    ask(url).catch(() => { location.href = url; });
  };

  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    if (event.target === dialog) { dialog.close(); return; }
    const link = event.target.closest("a");
    if (!link) return;
    if (link.matches("[data-close]") && dialog.open) { event.preventDefault(); dialog.close(); return; }
    if (link.matches("[data-confirm]")) instead(event, link.href);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const url = () => `${form.action.split(/[?#]/)[0]}?${new URLSearchParams(new FormData(form))}`;
    if (form.matches("[data-confirm]")) {
      instead(event, url());
    } else if (form.matches("[data-explain]")) {
      event.preventDefault();
      fetch(url(), { headers: { accept: "text/html" } })
        .then((response) => response.text())
        .then((text) => {
          const answer = parse(text).getElementById("explained");
          document.getElementById("explained").replaceChildren(...document.importNode(answer, true).childNodes);
        })
        .catch(() => form.submit());
    }
  });

  // A message about what was done is read once: it is not to come back when the page is loaded again.
  document.querySelector("main > [role=status]")?.focus();
  if (location.search.includes("done=")) {
    const url = new URL(location.href);
    url.searchParams.delete("done");
    history.replaceState(null, "", url);
  }
})();
