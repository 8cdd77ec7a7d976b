// Runs behind the snippet of config/README.md, as `snippet()` and with a wrong key as `stranger()`, and `material`.
import { Events, attempt, converse, same } from "../turns.mjs";

function eventsOf(realtime) {
  const events = new Events();
  realtime.on("event", (event) => events.put(event));
  realtime.on("error", (error) => {
    if (!error.error) events.put({ type: "closed", reason: error.message });
  });
  realtime.socket.on("close", (code) => events.put({ type: "closed", code }));
  return events;
}

await converse(async () => {
  const { realtime } = await snippet();
  const events = eventsOf(realtime);
  return { events, send: (event) => realtime.send(event), close: () => realtime.close() };
}, material, console.log);
await attempt("wrong key", async () => {
  const { realtime } = await stranger();
  same((await eventsOf(realtime).next("closed")).reason, "Unexpected server response: 401");
}, console.log);
