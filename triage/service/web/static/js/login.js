// Name and password to the session's API; then on to the page that was asked for.

import { say } from "./app.js";

const form = document.getElementById("login");
const fault = document.getElementById("fault");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  fault.textContent = "";
  try {
    const { name, password } = Object.fromEntries(new FormData(form));
    const answer = await fetch("/api/v1/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name, password }),
    });
    if (answer.ok) return location.assign(form.dataset.next);
    fault.textContent = answer.status === 401 ? say("wrong") : await words(answer);
    form.password.value = "";
    form.password.focus();
  } catch {
    fault.textContent = say("failed", { why: say("unreachable") });
  } finally {
    button.disabled = false;
  }
});

async function words(answer) {
  try {
    const { error } = await answer.json();
    return `${error.message} ${error.fix}`;
  } catch {
    return `${answer.status}`;
  }
}

try {
  const session = await (await fetch("/api/v1/session")).json();
  document.getElementById("not-needed").hidden = session.login !== false;
} catch { /* the form says what happens when it is sent */ }
