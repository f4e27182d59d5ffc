// The search of a page that was opened as a file. Browsers start no workers
// there, so the worker's script runs in a hidden frame in place of one.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.waiting = [];
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      // What the script says is heard out here, not by its own window.
      inside.postMessage = (data) =>
        this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.addEventListener("load", () => this.begin());
      inside.document.write(`<script src="${new URL(url, location)}"></script>`);
      inside.document.close();
    }

    begin() {
      const messages = this.waiting ?? [];
      this.waiting = null;
      messages.forEach((data) => this.postMessage(data));
    }

    postMessage(data) {
      if (this.waiting) {
        this.waiting.push(data);  // Until the script listens.
      } else {
        const inside = this.frame.contentWindow;
        inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      }
    }

    terminate() {
      this.frame.remove();
    }
  };
}
