/** The HTTP client: the part of the Docker Engine API that the PyDock server extension offers. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { type IEntry, readOutput, unixTime } from './stream';

/** A port of a container, as ContainerSummary has it; `PublicPort` only where it is published on the host. */
export interface IPort {
  readonly PrivatePort: number;
  readonly PublicPort?: number;
  readonly IP?: string;
  readonly Type: string;
}

/** The fields of Engine API's ContainerSummary that the panel shows. */
export interface IContainer {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly Image: string;
  readonly State: string;
  readonly Status: string;
  readonly Ports: readonly IPort[];
}

/** The fields of Engine API's ContainerInspectResponse that tabs need; `StartedAt` differs from run to run. */
export interface IInspected {
  readonly Id: string;
  readonly State: {
    readonly Status: string;
    readonly Running: boolean;
    readonly OOMKilled: boolean;
    readonly ExitCode: number;
    readonly StartedAt: string;
  };
}

/** The fields of Engine API's ImageSummary that the panel shows; `Size` in bytes. */
export interface IImage {
  readonly Id: string;
  readonly RepoTags: readonly string[] | null;
  readonly Size: number;
}

/** An answer that is not a success, with the server's own one-line message and hint. */
export class EngineError extends Error {
  /**
   * @param status - the HTTP status; 0 where there was no answer at all.
   * @param hint - the way out, empty where the server gave none.
   */
  constructor(
    readonly status: number,
    message: string,
    readonly hint = ''
  ) {
    super(message);
    this.name = 'EngineError';
  }
}

/** Return the name a person gave the container (the API writes it with a leading slash), else its short id. */
export function containerName(container: IContainer): string {
  return container.Names[0]?.replace(/^\//, '') ?? container.Id.slice(0, 12);
}

/** Return whether a container has processes: it can be stopped, and its ports may answer. */
export function isUp(container: IContainer): boolean {
  return ['running', 'paused', 'restarting'].includes(container.State);
}

/** Return the TCP ports of a container, each once, in rising order: one published twice is still one port. */
export function tcpPorts(container: IContainer): IPort[] {
  const byNumber = new Map<number, IPort>();
  for (const port of container.Ports) {
    const known = byNumber.get(port.PrivatePort);
    if (port.Type === 'tcp' && known?.PublicPort === undefined) {
      byNumber.set(port.PrivatePort, port);
    }
  }
  return [...byNumber.values()].sort((one, other) => one.PrivatePort - other.PrivatePort);
}

/** Calls under `{baseUrl}pydock/`, with Jupyter's own authentication and XSRF header. */
export class EngineClient {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  containers(): Promise<IContainer[]> {
    return this.json('containers/json', { all: '1' });
  }

  images(): Promise<IImage[]> {
    return this.json('images/json');
  }

  inspect(id: string): Promise<IInspected> {
    return this.json(`containers/${encodeURIComponent(id)}/json`);
  }

  async start(id: string): Promise<void> {
    await this.request('POST', `containers/${encodeURIComponent(id)}/start`);
  }

  async stop(id: string): Promise<void> {
    await this.request('POST', `containers/${encodeURIComponent(id)}/stop`);
  }

  /** Remove a container, a running one too: the panel has asked before. */
  async remove(id: string): Promise<void> {
    await this.request('DELETE', `containers/${encodeURIComponent(id)}`, { force: '1' });
  }

  /**
   * Follow what a container writes.
   *
   * @param since - the time of the first entry to read, as an entry has it; without it, the last thousand entries.
   * @param write - called with each entry, standard output and standard error in the order of arrival.
   * @param signal - ends it.
   * @returns when the container has ended.
   */
  async follow(
    id: string,
    since: string | undefined,
    write: (entry: IEntry) => void,
    signal: AbortSignal
  ): Promise<void> {
    const start = since === undefined ? { tail: '1000' } : { since: unixTime(since) };
    const query = { stdout: '1', stderr: '1', follow: '1', timestamps: '1', ...start };
    const response = await this.request('GET', `containers/${encodeURIComponent(id)}/logs`, query, { signal });
    await readOutput(response, write);
  }

  /** Return the address at which the server proxies a port of a container. */
  applicationUrl(name: string, port: number, path = ''): string {
    return URLExt.join(this.settings.baseUrl, 'pydock', 'c', encodeURIComponent(name), String(port)) + '/' + path;
  }

  private async json<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    const response = await this.request('GET', path, query);
    return (await response.json()) as T;
  }

  private async request(
    method: string,
    path: string,
    query: Record<string, string> = {},
    init: RequestInit = {}
  ): Promise<Response> {
    const url =
      URLExt.join(this.settings.baseUrl, 'pydock', 'api', path) + URLExt.objectToQueryString(query);
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, { ...init, method }, this.settings);
    } catch (error) {
      if (init.signal?.aborted === true) {
        throw error;
      }
      throw new EngineError(0, 'The Jupyter server does not answer.', 'Trying again; is it still running?');
    }
    // 304: it is already so (started, stopped), which is what was asked for.
    if (!response.ok && response.status !== 304) {
      throw await problemOf(response);
    }
    return response;
  }
}

async function problemOf(response: Response): Promise<EngineError> {
  let message = `${response.status} ${response.statusText}`;
  let hint = '';
  try {
    const body = (await response.json()) as { message?: unknown; hint?: unknown };
    message = typeof body.message === 'string' && body.message !== '' ? body.message : message;
    hint = typeof body.hint === 'string' ? body.hint : '';
  } catch {
    // Not JSON: a page of a proxy or of the server itself; the status line has to do.
  }
  return new EngineError(response.status, message, hint);
}
