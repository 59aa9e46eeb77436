// Decisions of all pages, which the browser keeps under one name for all of them.
const DECISIONS = ["accept", "reject", "skip"];
const DECISIONS_FORMAT = "mmdet_lesion decisions 1";

class Decisions {
  constructor(fingerprint, ids) {
    this.fingerprint = fingerprint;
    this.ids = ids;
    this.known = new Set(ids);
    this.name = `mmdet_lesion decisions ${fingerprint}`;
    this.made = new Map();
    this.kept = true;
    // Changed since the last download.
    this.changed = false;
    this.read();
    if (this.kept) this.write();
  }

  read() {
    try {
      this.made = this.checked(JSON.parse(localStorage.getItem(this.name)) || {});
    } catch (error) {
      // What the browser has kept may be damaged; without storage, decisions stay in memory.
      if (!(error instanceof SyntaxError)) this.kept = false;
    }
  }

  write() {
    try {
      localStorage.setItem(this.name, JSON.stringify(Object.fromEntries(this.made)));
    } catch {
      this.kept = false;
    }
  }

  checked(decisions) {
    return new Map(
      Object.entries(decisions).filter(([id, one]) => this.known.has(id) && DECISIONS.includes(one))
    );
  }

  of(id) {
    return this.made.get(id) || null;
  }

  set(id, decision) {
    // Another page may have decided in the meantime.
    if (this.kept) this.read();
    if (decision) this.made.set(id, decision);
    else this.made.delete(id);
    this.changed = true;
    if (this.kept) this.write();
  }

  count(decision, ids = this.ids) {
    return ids.filter((id) => this.of(id) === decision).length;
  }

  toText(path) {
    const made = this.ids.filter((id) => this.made.has(id)).map((id) => [id, this.made.get(id)]);
    const content = {
      format: DECISIONS_FORMAT,
      candidates: path,
      fingerprint: this.fingerprint,
      created: new Date().toISOString(),
      decisions: Object.fromEntries(made),
    };
    return JSON.stringify(content, null, 1) + "\n";
  }

  // Add the decisions of a file, which replace others; returns their number.
  load(text) {
    let content = null;
    try {
      content = JSON.parse(text);
    } catch {
      throw new Error("The file is not JSON; expected decisions.json.");
    }
    if (!content || content.format !== DECISIONS_FORMAT || typeof content.decisions !== "object") {
      throw new Error("The file has no decisions; expected decisions.json.");
    }
    if (content.fingerprint !== this.fingerprint) {
      throw new Error("The file has decisions about other candidates.");
    }
    if (this.kept) this.read();
    const loaded = this.checked(content.decisions || {});
    loaded.forEach((decision, id) => this.made.set(id, decision));
    if (this.kept) this.write();
    return loaded.size;
  }
}
