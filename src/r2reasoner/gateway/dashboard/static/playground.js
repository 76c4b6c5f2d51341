// Asks a question and shows what happens: the plan lights up node by node, events are listed.
// Texts go in as text; the only markup is the plan's picture, which the server draws and escapes.

const form = document.getElementById("ask");
const go = document.getElementById("go");
const stop = document.getElementById("stop");
const now = document.getElementById("now");
const trouble = document.getElementById("trouble");
const graph = document.getElementById("graph");
const log = document.getElementById("log");
const answer = document.getElementById("answer");
const dial = document.getElementById("trade_off");

let started = 0;
let controller = null;

function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function note(what, text = "", kind = "") {
  const line = document.createElement("li");
  const at = document.createElement("span");
  at.className = "at";
  at.textContent = `${Math.round(performance.now() - started).toLocaleString("en")} ms`;
  const words = document.createElement("span");
  words.className = `what ${kind}`;
  words.append(what);
  if (text) {
    const more = document.createElement("span");
    more.className = "text";
    more.textContent = text;
    words.append(more);
  }
  line.append(at, words);
  log.append(line);
}

function draw(markup) {
  const states = new Map([...graph.querySelectorAll("[data-node]")].map((n) => [n.dataset.node, n.getAttribute("class")]));
  const parsed = new DOMParser().parseFromString(markup, "text/html");
  graph.replaceChildren(...parsed.body.childNodes);
  for (const node of graph.querySelectorAll("[data-node]")) {
    if (states.has(node.dataset.node)) node.setAttribute("class", states.get(node.dataset.node));
    node.removeAttribute("href");
  }
}

function light(name, state) {
  for (const node of graph.querySelectorAll(`[data-node="${name}"]`)) {
    node.classList.remove("waits", "runs", "done", "failed");
    node.classList.add(state);
  }
  if (state !== "done") return;
  for (const edge of graph.querySelectorAll(`[data-from="${name.replace("subtask-", "")}"]`)) {
    edge.classList.add("passed");
  }
}

const shows = {
  begun(event) {
    say(now, "Planning");
    form.dataset.trace = event.id;
  },
  planned(event) {
    const count = event.plan.subtasks.length;
    draw(event.graph);
    note(event.failed ? "No valid plan: answering directly" : `Plan of ${count} subtask${count === 1 ? "" : "s"}`, event.notes.join("\n"));
    say(now, "Choosing models");
  },
  allocated(event) {
    draw(event.graph);
    const names = event.allocation.choices.map((c, i) => (c ? `#${i + 1} ${c.model}: ${c.reason}` : "")).filter(Boolean);
    note(`Models given by ${event.allocation.allocator}`, names.join("\n"));
    say(now, "Running subtasks");
  },
  subtask_started(event) {
    light(`subtask-${event.subtask}`, "runs");
    note(`#${event.subtask} asked of ${event.model}`, event.prompt);
  },
  subtask_finished(event) {
    light(`subtask-${event.step.subtask}`, "done");
    note(`#${event.step.subtask} answered by ${event.step.model}`, event.step.answer ?? "");
  },
  subtask_failed(event) {
    light(`subtask-${event.step.subtask}`, "failed");
    note(`#${event.step.subtask} failed`, event.step.error ?? "", "bad");
  },
  fell_back(event) {
    note(`#${event.subtask} falls back from ${event.from_model} to ${event.to_model}`, event.reason, "bad");
  },
  answered() {
    say(now, "Writing the bill");
  },
  ended(event) {
    light("answer", event.status === "complete" ? "done" : "failed");
    answer.hidden = false;
    document.getElementById("answer_text").textContent = event.answer;
    const link = document.createElement("a");
    link.href = `/traces/${encodeURIComponent(event.id)}`;
    link.textContent = "See the trace";
    const saved = event.saved ? `; ${event.strongest} alone: about ${event.alone} (${event.saved})` : "";
    document.getElementById("bill").replaceChildren(`${event.cost} for ${event.calls} calls in ${event.wall}${saved}. `, link);
    say(now, `Done: ${event.status.replace("_", " ")}${event.note ? `, ${event.note}` : ""}`);
  },
  error(event) {
    say(trouble, event.message);
    say(now, "Ended without an answer");
  },
};

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}

async function ask() {
  controller = new AbortController();
  started = performance.now();
  log.replaceChildren();
  graph.replaceChildren();
  answer.hidden = true;
  say(trouble, "");
  say(now, "Asking");
  document.getElementById("run").hidden = false;
  go.disabled = true;
  stop.hidden = false;
  let ended = false;
  try {
    const response = await fetch("/playground", {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "x-form-token": form.dataset.token },
      signal: controller.signal,
    });
    if (!response.ok) {
      const { error } = await response.json();
      throw new Error(typeof error === "string" ? error : error.message);
    }
    for await (const line of lines(response)) {
      const event = JSON.parse(line);
      shows[event.type]?.(event);
      ended ||= event.type === "ended" || event.type === "error";
    }
    if (!ended) throw new Error("the connection ended before the answer");
  } catch (error) {
    if (controller.signal.aborted) say(now, "Stopped; what was used is on the bill");
    else {
      say(trouble, error.message);
      say(now, "Ended without an answer");
    }
  } finally {
    go.disabled = false;
    stop.hidden = true;
    controller = null;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!controller) ask();
});
stop.addEventListener("click", () => controller?.abort());
dial.addEventListener("input", () => {
  document.getElementById("trade_off_value").textContent = Number(dial.value).toString();
});
document.getElementById("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
for (const example of document.querySelectorAll("[data-example]")) {
  example.addEventListener("click", () => {
    document.getElementById("query").value = example.dataset.example;
    form.requestSubmit();
  });
}
