/** Reads streamed responses: lines, and container logs as raw text or in Docker's multiplexed frames. */

const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';
const HEADER_BYTES = 8;
const SPACE = 0x20;
/** The RFC 3339 time with nanoseconds that `timestamps` puts before each entry. */
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z$/;

/** An entry of a log, usually a line with its line feed; `time` may be empty. */
export interface IEntry {
  readonly time: string;
  readonly text: string;
}

/** Call `write` with each line of a response that is not empty. */
export async function readLines(response: Response, write: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = '';
  await readChunks(response, chunk => {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    lines.filter(line => line !== '').forEach(write);
  });
}

/**
 * Call `write` with each entry of a log response, which was requested with `timestamps`.
 *
 * With the content type `application/vnd.docker.multiplexed-stream` the body consists of frames of an 8-byte header
 * (stream number, three zeros, big-endian length) and a payload (Engine API 1.51, ContainerAttach); any other body is
 * raw. Each stream has its own decoder, so a character may span two frames of one stream.
 */
export async function readOutput(response: Response, write: (entry: IEntry) => void): Promise<void> {
  const isMultiplexed = (response.headers.get('Content-Type') ?? '').startsWith(MULTIPLEXED);
  const decoder = isMultiplexed ? new FrameDecoder(write) : new RawDecoder(write);
  await readChunks(response, chunk => {
    decoder.push(chunk);
  });
  decoder.end();
}

async function readChunks({ body }: Response, write: (chunk: Uint8Array) => void): Promise<void> {
  const reader = body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) {
      return;
    }
    write(value);
  }
}

/** Return an entry's time in Unix seconds with nine decimals, the format of the parameter `since`. */
export function unixTime(time: string): string {
  const [, seconds = '', nanoseconds = ''] = TIME.exec(time) ?? [];
  return `${Date.parse(`${seconds}Z`) / 1000}.${nanoseconds}`;
}

/** Entries of a terminal, which have no frames: each is a line that begins with its time. */
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
    // An incomplete frame belongs to an interrupted response; it is read again.
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
