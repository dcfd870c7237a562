/** The HTTP client of the PyDock server extension: the panel's stream, and a part of the Docker Engine API. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { type IEntry, readLines, readOutput, unixTime } from './stream';

/** A TCP port of a running container; `published` is its host address or empty. */
export interface IPort {
  readonly number: number;
  readonly published: string;
}

/** A name in two parts: the first one may be cut, the second one not. */
export type Label = readonly [head: string, tail: string];

/** The symbol of a container's state. */
export type Look = 'running' | 'paused' | 'changing' | 'failed' | 'ended' | 'created';

/** A row of the list of containers; `up` tells whether the container has processes. */
export interface IContainer {
  readonly id: string;
  readonly name: string;
  readonly label: Label;
  readonly state: string;
  readonly status: string;
  readonly look: Look;
  readonly up: boolean;
  readonly ports: readonly IPort[];
  readonly title: string;
}

/** A row of the list of images; `label` is the first name or the short id. */
export interface IImage {
  readonly id: string;
  readonly names: readonly string[];
  readonly label: Label;
  readonly size: string;
  readonly title: string;
}

/** The panel's content (pydock_jupyter/panel_view.py); the lists are null before the first successful listing. */
export interface IPanelView {
  readonly containers: readonly IContainer[] | null;
  readonly images: readonly IImage[] | null;
  readonly problem: { readonly message: string; readonly hint: string } | null;
}

/** The fields of ContainerInspectResponse that tabs use; each run has its own `StartedAt`. */
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

/** A failed request, with the server's one-line message and hint. */
export class EngineError extends Error {
  /**
   * @param status - the HTTP status; 0 without a response.
   * @param hint - what to do about it; may be empty.
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

/** Sends requests to `{baseUrl}pydock/` with Jupyter's authentication and XSRF header. */
export class EngineClient {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  /**
   * Follow the panel's content.
   *
   * @param onChange - called first with all members of the content, then with changed ones.
   * @param signal - closes the stream.
   * @returns when the server has ended the stream.
   */
  async followPanel(onChange: (change: Partial<IPanelView>) => void, signal: AbortSignal): Promise<void> {
    const response = await this.request('GET', 'panel', {}, { signal });
    await readLines(response, line => {
      onChange(JSON.parse(line) as Partial<IPanelView>);
    });
  }

  async inspect(id: string): Promise<IInspected> {
    const response = await this.request('GET', `api/containers/${encodeURIComponent(id)}/json`);
    return (await response.json()) as IInspected;
  }

  async start(id: string): Promise<void> {
    await this.request('POST', `api/containers/${encodeURIComponent(id)}/start`);
  }

  async stop(id: string): Promise<void> {
    await this.request('POST', `api/containers/${encodeURIComponent(id)}/stop`);
  }

  /** Remove a container, even a running one; the caller has confirmed it. */
  async remove(id: string): Promise<void> {
    await this.request('DELETE', `api/containers/${encodeURIComponent(id)}`, { force: '1' });
  }

  /**
   * Follow a container's log.
   *
   * @param since - the time of the first entry, in an entry's format; by default, the last thousand entries are read.
   * @param write - called with each entry; standard output and standard error are in order of arrival.
   * @param signal - closes the stream.
   * @returns when the container has exited.
   */
  async follow(
    id: string,
    since: string | undefined,
    write: (entry: IEntry) => void,
    signal: AbortSignal
  ): Promise<void> {
    const start = since === undefined ? { tail: '1000' } : { since: unixTime(since) };
    const query = { stdout: '1', stderr: '1', follow: '1', timestamps: '1', ...start };
    const response = await this.request('GET', `api/containers/${encodeURIComponent(id)}/logs`, query, { signal });
    await readOutput(response, write);
  }

  /** Return the URL at which the server proxies a container's port. */
  applicationUrl(name: string, port: number, path = ''): string {
    return URLExt.join(this.settings.baseUrl, 'pydock', 'c', encodeURIComponent(name), String(port)) + '/' + path;
  }

  private async request(
    method: string,
    path: string,
    query: Record<string, string> = {},
    init: RequestInit = {}
  ): Promise<Response> {
    const url = URLExt.join(this.settings.baseUrl, 'pydock', path) + URLExt.objectToQueryString(query);
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, { ...init, method }, this.settings);
    } catch (error) {
      if (init.signal?.aborted === true) {
        throw error;
      }
      throw new EngineError(0, 'The Jupyter server does not answer.', 'Trying again. Check that it is running.');
    }
    // 304: the container is already started or stopped.
    if (!response.ok && response.status !== 304) {
      throw await readError(response);
    }
    return response;
  }
}

async function readError(response: Response): Promise<EngineError> {
  let message = `${response.status} ${response.statusText}`;
  let hint = '';
  try {
    const body = (await response.json()) as { message?: unknown; hint?: unknown };
    message = typeof body.message === 'string' && body.message !== '' ? body.message : message;
    hint = typeof body.hint === 'string' ? body.hint : '';
  } catch {
    // Not JSON but an error page: the status line is the message.
  }
  return new EngineError(response.status, message, hint);
}
