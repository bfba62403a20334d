// Log in by a login address or a token.
const form = document.getElementById("login");
const field = document.getElementById("token");
const fault = document.getElementById("fault");

function tokenIn(text) {
  const found = /[?&]token=([^&\s]+)/.exec(text);
  return found ? decodeURIComponent(found[1]) : text.trim();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault.textContent = "";
  field.removeAttribute("aria-invalid");
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token: tokenIn(field.value) || "-" }),
    });
    if (answer.ok) {
      location.replace("/" + location.hash);
      return;
    }
    const problem = await answer.json();
    fault.textContent = answer.status === 401
      ? "This address or token is not valid, or was used before. Start ystore serve again for a new one."
      : problem.detail;
  } catch {
    fault.textContent = "The service does not answer. Check that ystore serve is still running.";
  }
  field.setAttribute("aria-invalid", "true");
  field.select();
});

if (new URLSearchParams(location.search).has("token")) {
  history.replaceState(null, "", "/login");
  fault.textContent = "This login address was used before, or is older than 15 minutes.";
}
field.focus();
