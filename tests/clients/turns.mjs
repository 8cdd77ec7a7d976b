// The conversation of every client that speaks JavaScript, and its events in between.

const WAIT_MS = 20_000;

/** What one connection has received and nobody has read yet. The end of it is an event too: `closed`. */
export class Events {
  #events = [];
  #wake = () => {};

  put(event) {
    this.#events.push(event);
    this.#wake();
  }

  /** The events up to the next of a type. Throws at an error or the end before it, and when it takes too long. */
  async until(type) {
    const seen = [];
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      while (this.#events.length === 0) {
        const left = deadline - Date.now();
        if (left <= 0) throw new Error(`no ${type} within ${WAIT_MS / 1000} s`);
        await new Promise((resolve) => {
          this.#wake = resolve;
          setTimeout(resolve, left);
        });
      }
      const event = this.#events.shift();
      seen.push(event);
      if (event.type === type) return seen;
      if (["error", "closed"].includes(event.type)) throw new Error(`${JSON.stringify(event)} before ${type}`);
    }
  }

  async next(type) {
    return (await this.until(type)).at(-1);
  }
}

/** Run a turn and say what became of it, in a line as tests/clients/rows.py reads them. */
export async function attempt(name, turn, say) {
  try {
    await turn();
    say(`ok ${name}`);
  } catch (error) {
    say(`failed ${name}: ${String(error.message).replaceAll("\n", " ")}`);
  }
}

/** All turns of a conversation over one connection. `audio` is base64 of half a second, `image` a PNG of 640 x 480. */
export async function converse(send, events, { audio, image }, say) {
  const ask = async (...content) => {
    send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    send({ type: "response.create" });
    return said(await events.until("response.done"));
  };
  const update = async (session) => {
    send({ type: "session.update", session: { type: "realtime", ...session } });
    await events.next("session.updated");
  };

  await attempt("text", async () => {
    await events.next("session.created");
    await update({ output_modalities: ["text"], audio: { input: { turn_detection: null } } });
    same((await ask({ type: "input_text", text: "Good day — ünïcode 🎉" })).text, "You said: Good day — ünïcode 🎉");
  }, say);
  await attempt("audio", async () => {
    await update({ output_modalities: ["audio"] });
    for (let at = 0; at < audio.length; at += 6400) {
      send({ type: "input_audio_buffer.append", audio: audio.slice(at, at + 6400) });
    }
    send({ type: "input_audio_buffer.commit" });
    send({ type: "response.create" });
    const { text, spoken } = said(await events.until("response.done"));
    same(text, "I heard 0.5 seconds of audio.");
    if (spoken < 10_000) throw new Error(`${spoken} bytes of speech`);
  }, say);
  await attempt("image", async () => {
    same((await ask({ type: "input_image", image_url: image })).text, "I see a PNG image, 640 x 480.");
  }, say);
  await attempt("tool", async () => {
    const parameters = { type: "object", properties: {} };
    await update({ tools: [{ type: "function", name: "dice", description: "Rolls.", parameters }] });
    const { output } = await ask({ type: "input_text", text: 'call dice {"sides": 6}' });
    same([output.name, output.arguments].join(), 'dice,{"sides": 6}');
    const item = { type: "function_call_output", call_id: output.call_id, output: "4" };
    send({ type: "conversation.item.create", item });
    send({ type: "response.create" });
    same(said(await events.until("response.done")).text, "The tool answered: 4");
  }, say);
  await attempt("error", async () => {
    send({ type: "response.cancel", event_id: "mine" });
    const { error } = await events.next("error");
    same([error.code, error.event_id].join(), "response_cancel_not_active,mine");
    same((await ask({ type: "input_text", text: "Still there?" })).text, "You said: Still there?");
  }, say);
}

export function same(found, expected) {
  if (found !== expected) throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
}

function said(events) {
  const [output] = events.at(-1).response.output;
  const [content] = output.content ?? [];
  const deltas = events.filter((event) => event.type === "response.output_audio.delta");
  const spoken = deltas.reduce((bytes, event) => bytes + atob(event.delta).length, 0);
  return { output, text: content?.text ?? content?.transcript, spoken };
}
