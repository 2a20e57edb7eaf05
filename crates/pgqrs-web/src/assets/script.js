// Keeps the view fresh, and says how long ago times were. All else works without it.
(() => {
  "use strict";
  const EVERY = 3000;
  const byId = (id) => document.getElementById(id);
  const [fresh, pause, away] = ["fresh", "pause", "away"].map(byId);
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  let tag = "";
  let paused = sessionStorage.getItem("paused") === "true";
  let since = null;

  const relative = (time) => {
    const seconds = (new Date(time) - Date.now()) / 1000;
    if (Math.abs(seconds) < 10) return seconds < 0 ? "just now" : "in a moment";
    // Seconds in tens, so that a page which stays open is calm.
    if (Math.abs(seconds) < 60) return words.format(Math.trunc(seconds / 10) * 10, "second");
    const [size, unit] = units.find(([size]) => Math.abs(seconds) >= size);
    return words.format(Math.trunc(seconds / size), unit);
  };
  const tell = () => {
    for (const time of document.querySelectorAll("main time")) {
      if (!time.title && time.textContent) time.title = time.textContent;
      const shown = relative(time.dateTime);
      if (time.textContent !== shown) time.textContent = shown;
    }
  };
  const clock = () => new Date().toLocaleTimeString("en-GB");

  const show = () => {
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Paused" : "Pause";
    if (paused) fresh.textContent = "Not updated";
  };
  const lost = (why) => {
    since ??= clock();
    const text = `${why} since ${since}. What is shown is older; trying again.`;
    if (away.textContent !== text) away.textContent = text;
    away.hidden = false;
    fresh.textContent = "";
  };

  // Nothing is replaced while somebody types, selects, or has a dialogue open.
  const isBusy = () => {
    const active = document.activeElement;
    const types = active && active.closest("main") && /^(INPUT|TEXTAREA|SELECT)$/.test(active.tagName);
    return types || String(getSelection()).length > 0;
  };
  const focusable = (main) => [...main.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")];
  // What has neither an id nor a link is recognized by its place.
  const sameIn = (main, element) => {
    const old = element && element.closest("main");
    if (!old) return null;
    if (element.id) return main.querySelector(`#${CSS.escape(element.id)}`);
    const link = element.getAttribute("href");
    return link ? main.querySelector(`[href="${CSS.escape(link)}"]`) : focusable(main)[focusable(old).indexOf(element)];
  };
  const replace = (text) => {
    const next = new DOMParser().parseFromString(text, "text/html");
    const [main, old] = [next.querySelector("main"), document.querySelector("main")];
    if (!main || !old) return;
    for (const details of old.querySelectorAll("details[id]")) {
      const same = main.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = details.open;
    }
    const focused = sameIn(main, document.activeElement);
    const scrolled = [...old.querySelectorAll(".wide, pre")].map((box) => [box.scrollLeft, box.scrollTop]);
    old.replaceChildren(...main.childNodes);
    [...old.querySelectorAll(".wide, pre")].forEach((box, n) => {
      if (scrolled[n]) [box.scrollLeft, box.scrollTop] = scrolled[n];
    });
    if (focused) focused.focus({ preventScroll: true });
    document.title = next.title;
    tell();
  };

  const poll = async () => {
    if (paused || document.hidden || document.querySelector("main form[method=post]")) return;
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch(location.href, { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (answer.status !== 304) {
        const text = await answer.text();
        if (!answer.ok) {
          const problem = new DOMParser().parseFromString(text, "text/html").querySelector("#problem p");
          return lost(problem ? `No answer from the database (${problem.textContent})` : `Error ${answer.status}`);
        }
        if (isBusy()) return;
        tag = answer.headers.get("ETag") || "";
        replace(text);
      }
      since = null;
      away.hidden = true;
      away.textContent = "";
      fresh.textContent = `Updated ${clock()}`;
    } catch {
      lost("The server can't be reached");
    }
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused);
    show();
    poll();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    const find = byId("find");
    if (event.key === "/" && find) {
      event.preventDefault();
      find.focus();
    }
  });
  document.addEventListener("visibilitychange", poll);
  pause.parentElement.hidden = false;
  fresh.textContent = `Updated ${clock()}`;
  show();
  tell();
  setInterval(tell, 1000);
  const again = () => setTimeout(() => poll().finally(again), EVERY);
  again();
})();
