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
      while (this.#events.length === 0) await this.#news(type, deadline);
      const event = this.#events.shift();
      seen.push(event);
      if (event.type === type) return seen;
      if (["error", "closed"].includes(event.type)) throw new Error(`${JSON.stringify(event)} before ${type}`);
    }
  }

  /** The end, whatever comes before it. */
  async last() {
    const deadline = Date.now() + WAIT_MS;
    while (this.#events.at(-1)?.type !== "closed") await this.#news("closed", deadline);
    return this.#events.at(-1);
  }

  async #news(type, deadline) {
    const left = deadline - Date.now();
    if (left <= 0) throw new Error(`no ${type} within ${WAIT_MS / 1000} s`);
    let timer;
    await new Promise((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, left);
    });
    clearTimeout(timer);
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

export const GREETING = "Good day — ünïcode 🎉";
/** Said back, this takes long enough to be interrupted. */
export const LONG = "All work and no play makes it a long story. ".repeat(30);

/** All turns, each in a session of its own: `connect()` makes `{ send, events, close }`. `audio` is base64 of half a
 *  second, `speech` of the same between two silences, `image` a PNG of 640 x 480. */
export async function converse(connect, { audio, speech, image }, say) {
  for (const [name, turn] of Object.entries(TURNS)) {
    await attempt(name, async () => {
      const { send, events, close } = await connect();
      await events.next("session.created");
      const write = (...content) => {
        send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
        send({ type: "response.create" });
      };
      const answer = async () => said(await events.until("response.done"));
      const speak = (sound) => {
        for (let at = 0; at < sound.length; at += 6400) {
          send({ type: "input_audio_buffer.append", audio: sound.slice(at, at + 6400) });
        }
      };
      const update = async (session) => {
        send({ type: "session.update", session: { type: "realtime", ...session } });
        await events.next("session.updated");
      };
      await turn({ send, events, write, answer, speak, update, audio, speech, image });
      close();
      same((await events.last()).code, 1000);
    }, say);
  }
}

const TURNS = {
  text: async ({ update, write, answer }) => {
    await update({ output_modalities: ["text"], audio: { input: { turn_detection: null } } });
    write({ type: "input_text", text: GREETING });
    same((await answer()).text, `You said: ${GREETING}`);
  },
  audio: async ({ send, update, speak, answer, audio }) => {
    await update({ audio: { input: { turn_detection: null } } });
    speak(audio);
    send({ type: "input_audio_buffer.commit" });
    send({ type: "response.create" });
    const { text, spoken } = await answer();
    same(text, "I heard 0.5 seconds of audio.");
    if (spoken < 10_000) throw new Error(`${spoken} bytes of speech`);
  },
  "heard audio": async ({ events, speak, answer, speech }) => {
    speak(speech);
    await events.next("input_audio_buffer.speech_stopped");
    same((await answer()).text.slice(0, 8), "I heard ");
  },
  image: async ({ write, answer, image }) => {
    write({ type: "input_image", image_url: image });
    same((await answer()).text, "I see a PNG image, 640 x 480.");
  },
  tool: async ({ send, update, write, answer }) => {
    const parameters = { type: "object", properties: {} };
    await update({ tools: [{ type: "function", name: "dice", description: "Rolls.", parameters }] });
    write({ type: "input_text", text: 'call dice {"sides": 6}' });
    const { output } = await answer();
    same([output.name, output.arguments].join(), 'dice,{"sides": 6}');
    const item = { type: "function_call_output", call_id: output.call_id, output: "4" };
    send({ type: "conversation.item.create", item });
    send({ type: "response.create" });
    same((await answer()).text, "The tool answered: 4");
  },
  interruption: async ({ send, events, write }) => {
    write({ type: "input_text", text: LONG });
    const { item_id } = await events.next("response.output_audio.delta");
    send({ type: "response.cancel" });
    same((await events.next("response.done")).response.status_details.reason, "client_cancelled");
    send({ type: "conversation.item.truncate", item_id, content_index: 0, audio_end_ms: 50 });
    same((await events.next("conversation.item.truncated")).audio_end_ms, 50);
  },
  error: async ({ send, events, write, answer }) => {
    send({ type: "response.cancel", event_id: "mine" });
    const { error } = await events.next("error");
    same([error.code, error.event_id].join(), "response_cancel_not_active,mine");
    write({ type: "input_text", text: "Still there?" });
    same((await answer()).text, "You said: Still there?");
  },
};

export function same(found, expected) {
  if (found !== expected) throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
}

export function said(events) {
  const [output] = events.at(-1).response.output;
  const [content] = output.content ?? [];
  const deltas = events.filter((event) => event.type === "response.output_audio.delta");
  const spoken = deltas.reduce((bytes, event) => bytes + atob(event.delta).length, 0);
  return { output, text: content?.text ?? content?.transcript, spoken };
}
