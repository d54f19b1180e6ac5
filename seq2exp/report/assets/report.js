/* The report page: gene table, locus pages, genome browser. No library, nothing from the network. */
"use strict";
(() => {
  const BLUE = "#0072b2", ORANGE = "#e69f00", GREEN = "#009e73", RED = "#d55e00",
    PURPLE = "#cc79a7", SKY = "#56b4e9", GREY = "#8a8a8a", PALE = "#c8c8c8";
  const TRACK_COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, RED];
  const PAGE_ROWS = 25;
  // Made once: it is many times faster than localeCompare on thousands of names.
  const collator = new Intl.Collator("en", { numeric: true });
  const byId = (id) => document.getElementById(id);
  const index = JSON.parse(byId("data-index").textContent);

  /** Build an element; text is always set as text, so no name can become markup. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick" || name === "oninput" || name === "onchange") {
        element.addEventListener(name.slice(2), value);
      } else if (value !== null && value !== undefined && value !== false) {
        element.setAttribute(name, value === true ? "" : value);
      }
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /** Text of a part that is embedded as base64 of gzip. */
  async function unpack(id) {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("this browser cannot unpack gzip; use one of 2023 or later");
    }
    const binary = atob(byId(id).textContent.trim());
    const bytes = Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const group = (value) => value.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const isNumber = (value) => typeof value === "number";
  function shown(value, kind) {
    if (value === null || value === undefined || value === "") return "";
    if (kind === "position") return group(value + 1);
    if (kind === "float") return value.toFixed(3);
    if (kind === "distance") return `${value < 0 ? "\u2212" : "+"}${group(Math.abs(value))} bp`;
    if (kind === "signed") return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);
    return isNumber(value) ? group(value) : String(value);
  }

  // Gene table ---------------------------------------------------------------------------------

  const table = { columns: [], rows: [], view: [], page: 0, sort: null, down: false };

  async function startTable() {
    const holder = byId("gene-table");
    if (!holder) return;
    const data = JSON.parse(await unpack("data-genes"));
    table.columns = data.columns;
    const count = data.columns.length ? data.columns[0].values.length : 0;
    for (let i = 0; i < count; i += 1) {
      table.rows.push(data.columns.map((column) => decode(column, i)));
    }
    table.search = table.rows.map((row) => `${row[0]} ${row[1]} ${row[2]}`.toLowerCase());
    buildTable(holder);
    filterTable();
  }

  /** Texts that repeat, such as contigs, are stored once and numbered. */
  function decode(column, i) {
    const value = column.values[i];
    return column.levels && value !== null ? column.levels[value] : value;
  }

  function buildTable(holder) {
    const splits = table.columns.findIndex((column) => column.name === "split");
    const values = [...new Set(table.rows.map((row) => row[splits]))];
    table.split = splits;
    table.input = make("input", {
      type: "search", id: "gene-search", placeholder: "id, symbol or contig", autocomplete: "off",
      spellcheck: "false", oninput: () => { table.page = 0; filterTable(); },
    });
    table.choice = make("select", { id: "gene-split", onchange: () => { table.page = 0; filterTable(); } },
      make("option", { value: "" }, "all"), ...values.map((v) => make("option", { value: v }, v)));
    table.only = make("input", { type: "checkbox", id: "gene-only",
      onchange: () => { table.page = 0; filterTable(); } });
    table.status = make("span", { role: "status", class: "status" });
    const heads = table.columns.map((column, i) => make("th", { scope: "col", "aria-sort": "none",
      class: column.kind === "text" ? "text" : null },
    make("button", { type: "button", onclick: () => sortBy(i) }, column.title)));
    table.heads = heads;
    table.body = make("tbody");
    table.back = make("button", { type: "button", onclick: () => turn(-1) }, "Previous");
    table.forth = make("button", { type: "button", onclick: () => turn(1) }, "Next");
    table.place = make("span", {});
    holder.append(
      make("div", { class: "controls" },
        make("label", { for: "gene-search" }, "Search "), table.input,
        make("label", { for: "gene-split" }, "Split "), table.choice,
        make("label", { class: "check" }, table.only, " with a locus page"),
        make("button", { type: "button", id: "gene-csv", onclick: saveTable }, "Download CSV")),
      make("p", { class: "note" }, table.status),
      make("div", { class: "scroll" }, make("table", { class: "genes" },
        make("caption", { class: "hidden" }, "Genes; the buttons in the header sort"),
        make("thead", {}, make("tr", {}, ...heads)), table.body)),
      make("div", { class: "controls pager" }, table.back, table.place, table.forth),
    );
  }

  function filterTable() {
    const words = table.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const split = table.choice.value;
    table.view = [];
    for (let i = 0; i < table.rows.length; i += 1) {
      if (split && table.rows[i][table.split] !== split) continue;
      if (table.only.checked && !(table.rows[i][0] in index.loci)) continue;
      if (words.every((word) => table.search[i].includes(word))) table.view.push(i);
    }
    orderTable();
    drawTable();
  }

  function orderTable() {
    const column = table.sort;
    if (column === null) return;
    const sign = table.down ? -1 : 1;
    const value = (i) => table.rows[i][column];
    table.view.sort((a, b) => {
      const x = value(a), y = value(b);
      const missing = (x === null || x === "") - (y === null || y === "");
      if (missing) return missing;
      const order = isNumber(x) && isNumber(y) ? x - y
        : collator.compare(String(x), String(y));
      return order ? sign * order : a - b;
    });
  }

  function sortBy(column) {
    table.down = table.sort === column ? !table.down : false;
    table.sort = column;
    table.page = 0;
    table.heads.forEach((head, i) => head.setAttribute("aria-sort",
      i !== column ? "none" : table.down ? "descending" : "ascending"));
    orderTable();
    drawTable();
  }

  function turn(step) {
    table.page += step;
    drawTable();
  }

  function drawTable() {
    const pages = Math.max(1, Math.ceil(table.view.length / PAGE_ROWS));
    table.page = Math.min(Math.max(table.page, 0), pages - 1);
    const first = table.page * PAGE_ROWS;
    const rows = table.view.slice(first, first + PAGE_ROWS).map((i) => make("tr", {},
      ...table.columns.map((column, c) => tableCell(column, table.rows[i][c], table.rows[i], c))));
    table.body.replaceChildren(...rows);
    table.status.textContent = table.view.length === table.rows.length
      ? `${group(table.rows.length)} genes`
      : `${group(table.view.length)} of ${group(table.rows.length)} genes`;
    table.place.textContent = `page ${group(table.page + 1)} of ${group(pages)}`;
    table.back.disabled = table.page === 0;
    table.forth.disabled = table.page === pages - 1;
  }

  function tableCell(column, value, row, place) {
    const text = shown(value, column.kind);
    const options = { class: column.kind === "text" ? "text" : null };
    if (place === 0 && value in index.loci) {
      return make("td", options, make("a", { href: address(value) }, text));
    }
    return make("td", options, text);
  }

  const address = (gene) => `#gene=${encodeURIComponent(gene)}`;

  function saveTable() {
    const quote = (value) => value === null || value === undefined ? ""
      : /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
    const lines = [table.columns.map((column) => quote(column.name)).join(",")];
    for (const i of table.view) lines.push(table.rows[i].map(quote).join(","));
    const text = `${lines.join("\r\n")}\r\n`;
    // Chromium cuts data addresses of more than two megabytes.
    const long = text.length > 500000;
    const href = long ? URL.createObjectURL(new Blob([text], { type: "text/csv" }))
      : `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`;
    const link = make("a", { href, download: "genes.csv" });
    document.body.append(link);
    link.click();
    link.remove();
    if (long) setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

  // Locus pages --------------------------------------------------------------------------------

  let engine = null, browser = null, turnNumber = 0;

  /** Run the embedded igv.js; the policy of the page allows this text and no other. */
  async function startEngine() {
    if (!byId("data-igv")) return null;
    if (!engine) {
      engine = unpack("data-igv").then((text) => {
        const script = document.createElement("script");
        script.textContent = text;
        document.head.append(script);
        return globalThis.igv;
      });
    }
    return engine;
  }

  async function route() {
    const match = /^#gene=(.*)$/.exec(location.hash);
    const overview = byId("overview"), page = byId("locus");
    const leaving = !page.hidden;
    page.hidden = !match;
    overview.hidden = Boolean(match);
    if (!match) {
      closeBrowser();
      document.title = index.title;
      const target = location.hash.length > 1 ? byId(decodeURIComponent(location.hash.slice(1))) : null;
      if (target) target.scrollIntoView();
      if (leaving && !target) scrollTo(0, 0);
      return;
    }
    let gene = match[1];
    try { gene = decodeURIComponent(gene); } catch (error) { /* shown as it is */ }
    scrollTo(0, 0);
    await openLocus(gene);
  }

  function closeBrowser() {
    turnNumber += 1;
    if (browser) globalThis.igv.removeAllBrowsers();
    browser = null;
    byId("igv").replaceChildren();
  }

  async function openLocus(gene) {
    closeBrowser();
    const mine = turnNumber;
    const place = index.loci[gene];
    const title = byId("locus-title");
    document.title = `${gene} - ${index.title}`;
    byId("locus-body").hidden = place === undefined;
    neighbours(place);
    if (place === undefined) {
      title.textContent = gene;
      byId("locus-sub").textContent = "This gene has no locus page in this report. " +
        `To make one: seq2exp report RUN --genes ${gene}`;
      byId("locus-state").textContent = "";
      title.focus();
      return;
    }
    const entry = index.order[place];
    title.textContent = entry.symbol && entry.symbol !== gene ? `${entry.symbol} (${gene})` : gene;
    byId("locus-sub").textContent = entry.reason;
    byId("locus-facts").replaceChildren(...entry.facts.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    byId("locus-state").textContent = "Unpacking ...";
    title.focus();
    try {
      const locus = JSON.parse(await unpack(`locus-${place}`));
      if (mine !== turnNumber) return;
      elementTable(locus);
      const igv = await startEngine();
      if (mine !== turnNumber) return;
      // igv.js keeps a shadow tree on its element, so each browser gets a new one.
      const host = make("div");
      byId("igv").replaceChildren(host);
      const made = await igv.createBrowser(host, browserConfig(locus, entry));
      if (mine !== turnNumber) { igv.removeBrowser(made); return; }
      browser = made;
      fitToolbar(host);
      byId("locus-state").textContent = "";
    } catch (error) {
      byId("locus-state").textContent = `The locus cannot be shown: ${error.message}`;
      console.error(error);
    }
  }

  /** igv.js has one row of fixed height for its toolbar, which a narrow page cuts off. */
  function fitToolbar(host) {
    if (!host.shadowRoot) return;
    // Its own sheet is adopted, which comes after this one: the root's class outweighs it.
    const bar = ".igv-navbar.igv-navbar";
    host.shadowRoot.append(make("style", {}, `
      ${bar} { height: auto; min-height: 32px; flex-wrap: wrap; }
      ${bar} .igv-navbar-right-container { height: 32px; margin-left: auto; }
      ${bar} .igv-current-genome, ${bar} .igv-windowsize-panel-container { white-space: nowrap; }
      @media (max-width: 40rem) { ${bar} .igv-current-genome { display: none; } }`));
  }

  // Paper: the browser's canvases have the width of the screen, so its drawing takes their place.
  const onScreenOnly = byId("igv-print") && [...byId("igv-print").childNodes];

  function drawForPaper() {
    if (!browser || !onScreenOnly) return;
    const parsed = new DOMParser().parseFromString(browser.toSVG(), "image/svg+xml");
    const drawing = document.importNode(parsed.documentElement, true);
    if (drawing.localName !== "svg") return;
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", `The browser at ${byId("locus-title").textContent}`);
    byId("igv-print").replaceChildren(drawing);
  }

  function neighbours(place) {
    for (const [id, step] of [["locus-back", -1], ["locus-forth", 1]]) {
      const other = place === undefined ? undefined : index.order[place + step];
      const link = byId(id);
      link.hidden = !other;
      if (other) {
        link.setAttribute("href", address(other.id));
        link.setAttribute("title", other.symbol || other.id);
      }
    }
  }

  const TITLES = { start: "start", end: "end", element_class: "class", mean_mask: "mean mask",
    max_mask: "largest mask", summit: "summit", distance: "distance from the TSS" };
  const KINDS = { start: "position", summit: "position", mean_mask: "float", max_mask: "float",
    distance: "distance" };

  function elementTable(locus) {
    const { fields, rows } = locus.elements;
    const extra = locus.truth ? ["truth"] : [];
    const head = make("tr", {}, ...[...fields, "length", ...extra].map((name) =>
      make("th", { scope: "col" }, TITLES[name] || name.replaceAll("_", " "))));
    const from = fields.indexOf("start"), to = fields.indexOf("end");
    const body = rows.map((row) => {
      const cells = row.map((value, i) => shown(value, KINDS[fields[i]]));
      cells.push(`${group(row[to] - row[from])} bp`);
      if (locus.truth) {
        const hit = locus.truth.intervals.filter(([a, b]) => a < row[to] && b > row[from]);
        cells.push(hit.some(([, , causal]) => causal) ? "causal" : hit.length ? "not causal" : "");
      }
      return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
    });
    const holder = byId("locus-elements");
    holder.replaceChildren(rows.length
      ? make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)))
      : make("p", { class: "note" }, index.mapped ? "No element was called for this gene."
        : "There is no element map in this report."));
  }

  /** Contig names with a colon would be read as places by igv.js. */
  const safeContig = (name) => name.replaceAll(/[:\s<&]/g, "_");

  /** igv.js shows names as HTML in its windows; the policy stops scripts, this stops markup. */
  const harmless = (name) => String(name).replaceAll("<", "\u2039").replaceAll("&", "+");

  function edgesOf({ first, width, count }) {
    const edges = [first];
    for (let i = 0; i < count; i += 1) edges.push(edges[i] + (isNumber(width) ? width : width[i]));
    return edges;
  }

  function signal(locus, values, top) {
    const edges = edgesOf(locus.edges), chr = safeContig(locus.contig), features = [];
    values.forEach((value, i) => {
      if (value && edges[i + 1] > edges[i]) {
        features.push({ chr, start: edges[i], end: edges[i + 1], value: (value * top) / 1000 });
      }
    });
    return features;
  }

  function fasta(locus) {
    const { start, text } = locus.sequence;
    const letters = text || "N", from = text ? start : locus.start;
    return "data:text/plain;base64," + btoa(`>${safeContig(locus.contig)}:${from + 1}-${from +
      letters.length} @len=${locus.length}\n${letters}\n`);
  }

  function browserConfig(locus, entry) {
    const chr = safeContig(locus.contig);
    return {
      // An id that igv.js knows would bring its own tracks, from the network.
      reference: { id: harmless(`${index.assembly} (seq2exp)`), name: harmless(index.assembly), fastaURL: fasta(locus), indexed: false,
        wholeGenomeView: false },
      locus: `${chr}:${locus.start + 1}-${locus.end}`,
      // Nothing is looked up outside: no list of genomes, no search for names, no address options.
      loadDefaultGenomes: false, genomeList: [], search: false, queryParametersSupported: false,
      showIdeogram: false, showAllChromosomes: false, showChromosomeWidget: false,
      showSampleNames: false, showSampleNameButton: false, showROITableButton: false,
      showMultiSelectButton: false, showCenterGuideButton: false, showSVGButton: true,
      tracks: tracksOf(locus, entry, chr),
    };
  }

  function tracksOf(locus, entry, chr) {
    const tracks = [{ type: "sequence", order: -1000 }, genesTrack(locus, chr)];
    locus.tracks.forEach((track, i) => tracks.push({
      type: "wig", name: harmless(track.unit ? `${track.name} (${track.unit})` : track.name), height: 60,
      color: TRACK_COLOURS[i % TRACK_COLOURS.length], min: 0, max: Math.max(track.top, 1e-6),
      features: signal(locus, track.values, track.top),
    }));
    tracks.push(...maskTracks(locus), ...elementTracks(locus, entry, chr));
    if (locus.truth && locus.truth.intervals.length) tracks.push(truthTrack(locus, chr));
    if (locus.variants.length) tracks.push(variantTrack(locus, chr));
    return tracks.map((track, i) => ({ order: i + 1, removable: true, ...track }));
  }

  function genesTrack(locus, chr) {
    const features = locus.genes.map((gene) => ({
      chr, start: gene.start, end: gene.end, name: harmless(gene.name), strand: gene.strand,
      id: harmless(gene.id),
      color: gene.own ? RED : "#444444",
      ...(gene.exons.length ? { exons: gene.exons.map(([start, end]) => ({ start, end })) } : {}),
    }));
    return { type: "annotation", name: "genes", displayMode: "EXPANDED", height: 70,
      autoHeight: true, maxHeight: 160, features, visibilityWindow: -1, searchable: true };
  }

  function maskTracks(locus) {
    if (!locus.mask) return [];
    const { mean, low, high, threshold } = locus.mask;
    const part = (values, color, name) => ({ type: "wig", name, color, min: 0, max: 1,
      features: signal(locus, values, 1) });
    const lines = threshold === null ? []
      : [{ color: RED, dotted: true, y: threshold }];
    const known = high.some((value) => value !== null);
    const tracks = [{ ...part(mean, "#222222", "mask"), height: 80, guideLines: lines }];
    if (known) {
      tracks.push({ type: "merged", name: "mask, 95 % interval", height: 60, min: 0, max: 1, alpha: 1,
        tracks: [part(high, "#a9d5f2", "upper 97.5 %"), part(low, "#4c94c4", "lower 2.5 %")] });
    }
    return tracks;
  }

  function elementTracks(locus, entry, chr) {
    if (!index.mapped) return [];
    const { fields, rows } = locus.elements;
    const at = Object.fromEntries(fields.map((name, i) => [name, i]));
    const forced = (row) => row[at.element_class] === "promoter";
    const blocks = rows.map((row) => ({ chr, start: row[at.start], end: row[at.end],
      name: forced(row) ? "promoter" : row[at.mean_mask].toFixed(2),
      color: forced(row) ? PALE : BLUE }));
    const arcs = rows.filter((row) => !forced(row)).map((row) => {
      const element = [row[at.start], row[at.end]], promoter = [locus.tss, locus.tss + 1];
      const [left, right] = element[0] < locus.tss ? [element, promoter] : [promoter, element];
      return { chr1: chr, start1: left[0], end1: left[1], chr2: chr, start2: right[0], end2: right[1],
        chr, start: left[0], end: right[1], value: row[at.mean_mask], score: row[at.mean_mask],
        name: harmless(entry.symbol || entry.id) };
    });
    const tracks = [{ type: "annotation", name: "called elements", features: blocks, height: 45,
      displayMode: "COLLAPSED", visibilityWindow: -1, searchable: false }];
    if (arcs.length) {
      tracks.push({ type: "interact", name: "links to the TSS", features: arcs, height: 70,
        arcType: "nested", color: BLUE, alpha: 0.6, showBlocks: false, visibilityWindow: -1 });
    }
    return tracks;
  }

  function truthTrack(locus, chr) {
    const features = locus.truth.intervals.map(([start, end, causal, kind]) => ({ chr, start, end,
      name: causal ? harmless(kind) : "",
      kind: causal ? "causal" : harmless(`${kind}, not causal for this gene`),
      color: causal ? GREEN : PALE }));
    return { type: "annotation", name: harmless(`truth: ${locus.truth.name}`), features, height: 45,
      displayMode: "EXPANDED", visibilityWindow: -1, searchable: false };
  }

  function variantTrack(locus, chr) {
    const lines = locus.variants.map(([position, id, ref, alt]) =>
      [chr, position + 1, id || ".", ref, alt || ".", ".", ".", "."].join("\t"));
    const text = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO", ...lines, ""];
    return { type: "variant", format: "vcf", name: "variants", height: 50, displayMode: "EXPANDED",
      visibilityWindow: -1, color: PURPLE,
      url: "data:text/plain;base64," + btoa(unescape(encodeURIComponent(text.join("\n")))) };
  }

  // Start --------------------------------------------------------------------------------------

  addEventListener("hashchange", route);
  addEventListener("beforeprint", drawForPaper);
  addEventListener("afterprint", () => onScreenOnly && byId("igv-print").replaceChildren(...onScreenOnly));
  if (byId("locus-open")) {
    byId("locus-open").addEventListener("click", () => {
      location.hash = address(byId("locus-choice").value);
    });
  }
  document.documentElement.classList.add("scripted");
  startTable().catch((error) => {
    byId("gene-table").append(make("p", { class: "note" }, `The table cannot be shown: ${error.message}`));
    console.error(error);
  });
  route();
})();
