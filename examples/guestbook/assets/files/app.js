// The page works without this script; it only adds comfort.
"use strict";

const form = document.querySelector("form");
if (form) {
  const message = form.elements.message;
  const left = form.querySelector("output");
  const count = () => {
    const free = message.maxLength - message.value.length;
    left.textContent = free < 200 ? `${free} characters left` : "";
  };
  message.addEventListener("input", count);
  count();

  // A second click would be recognised by its token; this says so at once.
  form.addEventListener("submit", () => {
    form.querySelector("button").disabled = true;
  });
  // The back button brings the page back as it was left.
  window.addEventListener("pageshow", () => {
    form.querySelector("button").disabled = false;
  });
}

const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
for (const time of document.querySelectorAll("time")) {
  time.textContent = format.format(new Date(time.dateTime));
}
