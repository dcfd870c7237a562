/** Container output over HTTP: entries with times, as raw text or in Docker's multiplexed frames. */

const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';
const HEADER_BYTES = 8;
const SPACE = 0x20;
/** RFC 3339 with nanoseconds, as `timestamps` puts it before each entry. */
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z$/;

/** One entry of a log, usually a line with its end; `time` is empty if the entry has none. */
export interface IEntry {
  readonly time: string;
  readonly text: string;
}

/**
 * Read a log response, asked for with `timestamps`, to its end and hand on its entries.
 *
 * With the content type `application/vnd.docker.multiplexed-stream` the body is frames of an 8-byte header (stream
 * number, three zeros, big-endian length) and a payload (Engine API 1.51, ContainerAttach); anything else is raw.
 * Each stream is decoded on its own, so that a character cut between two frames of one stream survives.
 */
export async function readOutput(response: Response, write: (entry: IEntry) => void): Promise<void> {
  if (response.body === null) {
    return;
  }
  const reader = response.body.getReader();
  const isMultiplexed = (response.headers.get('Content-Type') ?? '').startsWith(MULTIPLEXED);
  const decoder = isMultiplexed ? new FrameDecoder(write) : new RawDecoder(write);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      decoder.end();
      return;
    }
    decoder.push(value);
  }
}

/** Return a time of an entry in Unix seconds with nine decimals, as the parameter `since` takes it. */
export function unixTime(time: string): string {
  const [, seconds = '', nanoseconds = ''] = TIME.exec(time) ?? [];
  return `${Date.parse(`${seconds}Z`) / 1000}.${nanoseconds}`;
}

/** Entries without frames (a terminal's): each is a line, and begins with its time. */
class RawDecoder {
  private readonly decoder = new TextDecoder();
  private rest = '';

  constructor(private readonly write: (entry: IEntry) => void) {}

  push(chunk: Uint8Array): void {
    const text = this.rest + this.decoder.decode(chunk, { stream: true });
    const end = text.lastIndexOf('\n') + 1;
    this.rest = text.slice(end);
    for (const line of text.slice(0, end).match(/[^\n]*\n/g) ?? []) {
      this.entry(line);
    }
  }

  end(): void {
    if (this.rest !== '') {
      this.entry(this.rest);
    }
  }

  private entry(line: string): void {
    const [time] = line.split(' ', 1);
    if (time !== undefined && TIME.test(time)) {
      this.write({ time, text: line.slice(time.length + 1) });
    } else {
      this.write({ time: '', text: line });
    }
  }
}

class FrameDecoder {
  private readonly texts = new Map<number, TextDecoder>();
  private rest = new Uint8Array(0);

  constructor(private readonly write: (entry: IEntry) => void) {}

  push(chunk: Uint8Array): void {
    const bytes = new Uint8Array(this.rest.length + chunk.length);
    bytes.set(this.rest);
    bytes.set(chunk, this.rest.length);
    const view = new DataView(bytes.buffer);
    let start = 0;
    while (bytes.length - start >= HEADER_BYTES) {
      const end = start + HEADER_BYTES + view.getUint32(start + 4);
      if (end > bytes.length) {
        break;
      }
      this.entry(view.getUint8(start), bytes.subarray(start + HEADER_BYTES, end));
      start = end;
    }
    this.rest = bytes.slice(start);
  }

  end(): void {
    // A frame that is cut off belongs to a response that broke off: it is read again.
  }

  private entry(stream: number, payload: Uint8Array): void {
    const cut = payload.indexOf(SPACE);
    const time = String.fromCharCode(...payload.subarray(0, Math.max(Math.min(cut, 40), 0)));
    const data = TIME.test(time) ? payload.subarray(cut + 1) : payload;
    const text = this.decoder(stream).decode(data, { stream: true });
    this.write({ time: TIME.test(time) ? time : '', text });
  }

  private decoder(stream: number): TextDecoder {
    const known = this.texts.get(stream) ?? new TextDecoder();
    this.texts.set(stream, known);
    return known;
  }
}
