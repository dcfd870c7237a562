/** Container output over HTTP: raw text, or Docker's multiplexed frames. */

const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';
const HEADER_BYTES = 8;

/**
 * Read a log response to its end and hand on its text.
 *
 * With the content type `application/vnd.docker.multiplexed-stream` the body is frames of an 8-byte header (stream
 * number, three zeros, big-endian length) and a payload (Engine API 1.51, ContainerAttach); anything else is raw.
 * Each stream is decoded on its own, so that a character cut between two frames of one stream survives.
 */
export async function readOutput(response: Response, write: (text: string) => void): Promise<void> {
  if (response.body === null) {
    return;
  }
  const reader = response.body.getReader();
  const isMultiplexed = (response.headers.get('Content-Type') ?? '').startsWith(MULTIPLEXED);
  const decoder = isMultiplexed ? new FrameDecoder(write) : new RawDecoder(write);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    decoder.push(value);
  }
}

class RawDecoder {
  private readonly text = new TextDecoder();

  constructor(private readonly write: (text: string) => void) {}

  push(chunk: Uint8Array): void {
    this.write(this.text.decode(chunk, { stream: true }));
  }
}

class FrameDecoder {
  private readonly texts = new Map<number, TextDecoder>();
  private rest = new Uint8Array(0);

  constructor(private readonly write: (text: string) => void) {}

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
      const text = this.decoder(view.getUint8(start));
      this.write(text.decode(bytes.subarray(start + HEADER_BYTES, end), { stream: true }));
      start = end;
    }
    this.rest = bytes.slice(start);
  }

  private decoder(stream: number): TextDecoder {
    const known = this.texts.get(stream) ?? new TextDecoder();
    this.texts.set(stream, known);
    return known;
  }
}
