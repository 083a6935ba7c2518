/** The page of a host: who is signed in, which volume is looked at, and whether the daemon answers. */

import { Api, NoAnswer } from "./api.js";
import { run } from "./dialogs.js";
import { byId, put, say, show } from "./dom.js";
import { EventList } from "./events.js";
import { Session } from "./session.js";
import { EventStream } from "./stream.js";
import { formatDuration } from "./units.js";
import { VolumeView } from "./volume.js";
import { VolumeList } from "./volumes.js";

const SAID_MS = 8000;
const AGAIN_MS = 3000;

class Page {
  #session = null;
  #silentSince = null;
  #saidTimer = null;

  constructor() {
    this.api = new Api({
      heard: () => this.#hear(),
      silent: () => this.#missAnswer(),
      stranger: (problem) => this.#askWho(problem),
    });
    this.list = new VolumeList(this.api);
    this.events = new EventList();
    this.volume = new VolumeView(this.api, {
      told: (words) => this.#say(words),
      changed: (volumeId) => this.list.notice(volumeId, false),
      names: () => this.list.names,
    });
    this.stream = new EventStream(this.api, {
      told: (event) => this.#take(event),
      changed: (isFollowing) => this.events.setFollowing(isFollowing),
    });
    byId("sign-in").addEventListener("submit", (event) => this.#signIn(event));
    byId("sign-out").addEventListener("click", () => this.#signOut());
    byId("skip").addEventListener("click", (event) => this.#skip(event));
    document.addEventListener("said", (event) => this.#say(event.detail));
    window.addEventListener("hashchange", () => this.#open());
    setInterval(() => this.#tellSilence(), 1000);
  }

  /** Find out who asks, and show what there is; while nobody answers, try again. */
  async start() {
    try {
      await this.#begin();
    } catch (error) {
      if (error instanceof NoAnswer) setTimeout(() => this.start(), AGAIN_MS);
      else if (error.code !== "unauthenticated") this.#say(error.message);
    }
  }

  async #begin() {
    this.#session = new Session(await this.api.get("/v1/me"));
    say(byId("who"), this.#session.name);
    show(byId("sign-out"), this.api.hasToken);
    show(byId("sign-in"), false);
    show(byId("content"), true);
    this.list.start();
    this.stream.start();
    this.#open();
  }

  #askWho(problem) {
    const isRefused = this.api.hasToken;
    this.#stop();
    show(byId("sign-in"), true);
    if (isRefused) say(byId("sign-in").querySelector(".error"), problem.message);
    byId("token").focus();
  }

  #stop() {
    this.api.setToken(null);
    this.#session = null;
    this.list.stop();
    this.stream.stop();
    this.events.clear();
    this.volume.open(null, null);
    show(byId("content"), false);
    show(byId("sign-out"), false);
    say(byId("who"), "");
  }

  #signIn(event) {
    event.preventDefault();
    const field = byId("token");
    run(
      byId("sign-in"),
      () => true,
      async () => {
        this.api.setToken(field.value.trim());
        field.value = "";
        await this.#begin();
      },
    );
  }

  #signOut() {
    this.#stop();
    show(byId("sign-in"), true);
    byId("token").focus();
  }

  /** Show what the address names: `#/volume/NAME`, or the list. */
  #open() {
    if (this.#session === null) return;
    const volumeId = /^#\/volume\/([a-z0-9._-]+)$/.exec(location.hash)?.[1] ?? null; // such a name needs no escapes
    put(byId("content"), "data-view", volumeId === null ? "list" : "volume");
    document.title = volumeId === null ? "volgate" : `${volumeId} · volgate`;
    this.volume.open(volumeId, this.#session);
    this.events.open(volumeId);
    this.list.poke();
  }

  #take(event) {
    const volumeId = event.facts.volume_id;
    this.events.add(event);
    this.list.notice(volumeId, event.kind.startsWith("volume."));
    if (volumeId === this.volume.id) this.volume.notice();
  }

  #skip(event) {
    event.preventDefault(); // the address says which volume is looked at
    byId("main").focus();
  }

  #say(words) {
    say(byId("said"), words);
    clearTimeout(this.#saidTimer);
    this.#saidTimer = setTimeout(() => say(byId("said"), ""), SAID_MS);
  }

  #hear() {
    this.#silentSince = null;
    this.#tellSilence();
  }

  #missAnswer() {
    this.#silentSince ??= Date.now();
    this.#tellSilence();
  }

  #tellSilence() {
    const isSilent = this.#silentSince !== null;
    put(document.body, "data-silent", isSilent ? "" : null);
    say(
      byId("silence"),
      isSilent ? "The control daemon does not answer. Mounts go on without it; what is shown here is old." : "",
    );
    if (isSilent) say(byId("events-state"), `no answer for ${formatDuration((Date.now() - this.#silentSince) / 1000)}`);
  }
}

new Page().start();
