// The call of ../clients/python/caller.py in a browser, by a client that does not count its events: after a cut an
// answer that had begun is over for it.

const TEXT = { output_modalities: ["text"] };
const DICE = { type: "function", name: "dice", description: "Rolls.", parameters: { type: "object", properties: {} } };
const SESSION = { type: "realtime", tools: [DICE], audio: { input: { transcription: { model: "whisper-1" } } } };
const LONG = "All work and no play makes it a long story. ".repeat(30);
const [VOICE, CANCEL, TRUNCATE] = ["", "cancel again", "truncate again"];
const UNTOLD_MS = 5_000;
const PARTING = 3;
const SILENCE = btoa("\0".repeat(48_000));

export class Caller {
  #send;
  #material;
  #waiting = [];
  #resumed = -1;
  #updates = 0;
  #configured = new Set();
  #items = new Set();
  #sent = new Set();
  #spoken = [];
  #calls = new Map();
  #committed = false;
  #spoke = false;
  #truncated = new Set();
  #turns = new Map(); // of each answer whose beginning came over the connection that there is
  #begun = new Map();
  #ended = new Map();
  #sounding = new Set();
  #problem = "";

  constructor(send, material) {
    this.#send = send;
    this.#material = material;
  }

  hear(event) {
    this.#learn(event);
    for (const look of this.#waiting.splice(0)) look();
  }

  #learn(event) {
    const answer = event.response_id ?? event.response?.id;
    if (answer && event.type !== "response.created" && !this.#turns.has(answer)) {
      this.#problem = `${event.type} of an answer that it cannot place`;
      return;
    }
    const turn = this.#turns.get(answer);
    switch (event.type) {
      case "session.created":
        this.#resumed += 1;
        this.#turns.clear();
        break;
      case "session.updated":
        this.#configured.add(event.session.instructions);
        break;
      case "conversation.item.added":
        this.#items.add(event.item.id);
        if (event.item.role === "assistant") this.#spoken.push(event.item.id);
        break;
      case "conversation.item.done":
        if (event.item.type === "function_call") this.#calls.set(event.item.call_id, event.item);
        break;
      case "input_audio_buffer.committed":
        this.#committed = true;
        break;
      case "conversation.item.truncated":
        this.#truncated.add(event.item_id);
        break;
      case "response.created": {
        const named = event.response.metadata?.turn ?? VOICE;
        this.#turns.set(answer, named);
        this.#begun.set(named, (this.#begun.get(named) ?? 0) + 1);
        this.#sounding.delete(named);
        break;
      }
      case "response.output_audio.delta":
        this.#sounding.add(turn);
        break;
      case "response.done":
        this.#done(turn, event.response);
        break;
      case "error":
        if (event.error.event_id === TRUNCATE) this.#truncated.add(this.#spoken.at(-1)); // it is shorter than that
        else if (event.error.code === "upstream_unreachable" && this.#resumed < 0) break; // closed 1013: once more
        else if (event.error.event_id !== CANCEL) this.#problem = JSON.stringify(event.error);
    }
  }

  #done(turn, { status, status_details }) {
    if (status_details?.error?.code === "upstream_connection_lost") return; // the gateway asks again
    if (!["completed", "cancelled"].includes(status)) this.#problem = `${turn} ended ${status}`;
    if (this.#ended.has(turn)) this.#problem = `${turn || "what was said aloud"} was answered twice`;
    this.#ended.set(turn, status);
  }

  async call() {
    await this.#until(() => this.#resumed >= 0);
    await this.#known();
    await this.#ask("how are you");
    await this.#answered([VOICE], () => this.#speak());
    await this.#ask("this", { type: "input_image", image_url: this.#material.image });
    await this.#tool();
    await this.#answered(["first", "second"], (turn) => {
      this.#write("twice");
      this.#respond(turn, TEXT);
    });
    const beside = [{ type: "message", role: "user", content: [{ type: "input_text", text: "beside" }] }];
    await this.#answered(["beside"], (turn) => this.#respond(turn, { conversation: "none", input: beside, ...TEXT }));
    await this.#interrupt();
    await this.#ask("good bye");
    for (let n = 0; n < PARTING; n++) await this.#known();
  }

  /** Wait for something, or a cut: whether it was not a cut. */
  async #until(holds) {
    const resumed = this.#resumed;
    while (!this.#problem && !holds() && this.#resumed === resumed) {
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    if (this.#problem) throw new Error(this.#problem);
    return holds();
  }

  async #known() {
    this.#updates += 1;
    const instructions = `Be brief. ${this.#updates}`;
    do this.#send({ type: "session.update", session: { ...SESSION, instructions } });
    while (!(await this.#until(() => this.#configured.has(instructions))));
  }

  #isOver(turn) {
    const begun = this.#begun.has(turn) || (turn === VOICE && this.#committed);
    return this.#ended.has(turn) || (begun && ![...this.#turns.values()].includes(turn));
  }

  async #answered(turns, ask) {
    for (;;) {
      for (const turn of turns) if (!this.#begun.has(turn)) await ask(turn);
      if (await this.#until(() => turns.every((turn) => this.#ended.has(turn)))) return;
      await this.#known();
      this.#sent.clear();
      if (turns.every((turn) => this.#isOver(turn))) return;
    }
  }

  #create(item) {
    if (this.#items.has(item.id) || this.#sent.has(item.id)) return;
    this.#sent.add(item.id);
    this.#send({ type: "conversation.item.create", item });
  }

  #respond(turn, response) {
    this.#send({ type: "response.create", response: { metadata: { turn }, ...response } });
  }

  #write(words, ...more) {
    const content = [{ type: "input_text", text: words }, ...more];
    this.#create({ id: words.replace(/\W/g, "").slice(0, 12), type: "message", role: "user", content });
  }

  #ask(words, ...more) {
    return this.#answered([words], () => {
      this.#write(words, ...more);
      this.#respond(words, TEXT);
    });
  }

  async #speak() {
    const say = (sound) => {
      for (let at = 0; at < sound.length; at += 6400) {
        this.#send({ type: "input_audio_buffer.append", audio: sound.slice(at, at + 6400) });
      }
    };
    if (this.#spoke) {
      say(SILENCE); // a part of what was said may have come: then that is the turn
      await this.#known();
    }
    this.#spoke = true;
    if (!this.#committed) say(this.#material.speech);
  }

  async #tool() {
    await this.#ask('call dice {"sides": 6}');
    let late = false;
    setTimeout(() => { late = true; this.#waiting.splice(0).forEach((look) => look()); }, UNTOLD_MS);
    while (!this.#calls.size && !late) await this.#until(() => this.#calls.size || late);
    if (!this.#calls.size) return; // it may have missed it
    const [call_id] = this.#calls.keys();
    await this.#answered(["four"], (id) => {
      this.#create({ id, type: "function_call_output", call_id, output: "4" });
      this.#respond(id, TEXT);
    });
  }

  async #interrupt() {
    const turn = "long";
    for (;;) {
      if (!this.#begun.has(turn)) {
        this.#write(LONG);
        this.#respond(turn, {});
      }
      if (await this.#until(() => this.#sounding.has(turn) || this.#ended.has(turn))) break;
      await this.#known();
      this.#sent.clear();
      if (this.#isOver(turn)) break;
    }
    while (!this.#ended.has(turn)) {
      const begun = this.#begun.get(turn);
      this.#send({ type: "response.cancel", event_id: CANCEL });
      if (this.#isOver(turn)) {
        await this.#known();
        break;
      }
      if (!(await this.#until(() => this.#ended.has(turn) || this.#begun.get(turn) > begun))) await this.#known();
    }
    const item_id = this.#spoken.at(-1);
    while (!this.#truncated.has(item_id)) {
      this.#send({ type: "conversation.item.truncate", event_id: TRUNCATE, item_id, content_index: 0, audio_end_ms: 50 });
      if (!(await this.#until(() => this.#truncated.has(item_id)))) await this.#known();
    }
  }
}
