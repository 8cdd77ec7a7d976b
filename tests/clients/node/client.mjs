// Runs behind the snippet of config/README.md, which makes `client` and `realtime`, and a line with `material`.
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

const events = eventsOf(realtime);
await converse((event) => realtime.send(event), events, material, console.log);
await attempt("close", async () => {
  realtime.close();
  same((await events.next("closed")).code, 1000);
}, console.log);
await attempt("wrong key", async () => {
  const stranger = new OpenAIRealtimeWS({ model: "gpt-realtime-2.1" }, client.withOptions({ apiKey: "sk-wrong" }));
  same((await eventsOf(stranger).next("closed")).reason, "Unexpected server response: 401");
}, console.log);
