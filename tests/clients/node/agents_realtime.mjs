// Runs behind the snippet of config/README.md, as `snippet()` and with a wrong key as `stranger()`, and `material`.
import { RealtimeAgent, tool } from "@openai/agents-realtime";
import { Events, GREETING, LONG, attempt, said, same } from "../turns.mjs";

const dice = tool({
  name: "dice",
  description: "Rolls.",
  parameters: {
    type: "object", properties: { sides: { type: "number" } }, required: ["sides"], additionalProperties: true,
  },
  strict: false,
  execute: ({ sides }) => String(sides - 2),
});
const agent = new RealtimeAgent({ name: "Assistant", instructions: "Answer.", tools: dispatched ? [] : [dice] });
const bytes = (sound) => Uint8Array.from(atob(sound), (letter) => letter.charCodeAt(0)).buffer;

/** A session that is set up: it sends its configuration, and once more to turn tracing on. */
async function connect() {
  const events = new Events();
  const { session } = await snippet();
  session.on("error", () => {}); // the turns read errors among the events
  session.transport.on("*", (event) => events.put(event));
  await events.next("session.updated");
  await events.next("session.updated");
  const answer = async () => said(await events.until("response.done"));
  const update = async (config) => {
    session.transport.updateSessionConfig(config);
    await events.next("session.updated");
  };
  return { session, events, answer, update };
}

const TURNS = {
  text: async ({ session, update, answer }) => {
    await update({ outputModalities: ["text"] });
    session.sendMessage(GREETING);
    same((await answer()).text, `You said: ${GREETING}`);
  },
  audio: async ({ session, update, answer }) => {
    await update({ audio: { input: { turnDetection: null } } });
    session.sendAudio(bytes(material.audio), { commit: true });
    session.transport.requestResponse();
    same((await answer()).text, "I heard 0.5 seconds of audio.");
  },
  "heard audio": async ({ session, events, answer }) => {
    session.sendAudio(bytes(material.speech));
    await events.next("input_audio_buffer.speech_stopped");
    same((await answer()).text.slice(0, 8), "I heard ");
  },
  image: async ({ session, answer }) => {
    session.addImage(material.image, { triggerResponse: true });
    same((await answer()).text, "I see a PNG image, 640 x 480.");
  },
  tool: async ({ session, answer }) => {
    session.sendMessage('call dice {"sides": 6}');
    same((await answer()).output.name, "dice"); // the session answers it by itself
    same((await answer()).text, "The tool answered: 4");
  },
  interruption: async ({ session, events }) => {
    session.sendMessage(LONG);
    await events.next("response.output_audio.delta");
    session.interrupt();
    same((await events.next("response.done")).response.status, "cancelled");
    await events.next("conversation.item.truncated");
    await events.next("conversation.item.retrieved"); // it asks what is left of the item
  },
  error: async ({ session, events, answer }) => {
    session.transport.sendEvent({ type: "response.cancel", event_id: "mine" });
    const { error } = await events.next("error");
    same([error.code ?? error.error?.code, error.event_id ?? error.error?.event_id].join(), "response_cancel_not_active,mine");
    session.sendMessage(GREETING);
    same((await answer()).text, `You said: ${GREETING}`);
  },
};

/** The gateway runs a slow tool, and says "hold on": nothing here knows of it. */
async function unaware({ session, events }) {
  const seen = [];
  const hear = async (words) => {
    do seen.push(...(await events.until("response.done")));
    while (!JSON.stringify(seen.at(-1)).includes(words));
  };
  session.sendMessage("call lookup");
  await hear("The tool answered");
  session.sendMessage(GREETING);
  await hear(`You said: ${GREETING}`);
  same(seen.some((event) => JSON.stringify(event).includes("call_")), false);
  const fillers = seen.filter(({ type, response }) => type === "response.created" && response.metadata?.rtpipe_filler);
  same(fillers.length, 1);
}

for (const [name, turn] of Object.entries(dispatched ? { dispatched: unaware } : TURNS)) {
  await attempt(name, async () => {
    const talk = await connect();
    await turn(talk);
    talk.session.close();
  }, console.log);
}
if (!dispatched) await attempt("wrong key", async () => {
  let refused;
  try {
    await stranger();
  } catch (error) {
    refused = error;
  }
  if (!String(refused?.error?.message ?? refused?.message ?? refused).includes("401")) throw new Error(`${refused}`);
}, console.log);
