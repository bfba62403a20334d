// The stream of events.  A browser opens six connections to one host, so all tabs share a stream: this module
// is also the worker that has it.

/** Call `tell` with `{job}`, `{store}` and `{online, refused}`, again and again. */
export function follow(tell) {
  const source = new EventSource("/api/v1/events");
  source.addEventListener("job", (event) => tell({ job: JSON.parse(event.data) }));
  source.addEventListener("store", () => tell({ store: true }));
  source.addEventListener("open", () => tell({ online: true }));
  source.addEventListener("error", () => {
    const refused = source.readyState === EventSource.CLOSED;
    tell({ online: false, refused });
    if (refused) setTimeout(() => follow(tell), 3000);
  });
}

const tabs = new Set();
const jobs = new Map(); // the newest state of each, for tabs that come later
let state = null;

function share(message) {
  if (message.job) jobs.set(message.job.id, message.job);
  if (message.online) jobs.clear();
  if ("online" in message) state = message;
  for (const tab of tabs) tab.postMessage(message);
}

if ("onconnect" in globalThis) {
  globalThis.onconnect = ({ ports: [tab] }) => {
    if (!tabs.size && !state) follow(share);
    tabs.add(tab);
    tab.onmessage = () => tabs.delete(tab);
    if (state) tab.postMessage(state);
    for (const job of jobs.values()) tab.postMessage({ job });
  };
}
