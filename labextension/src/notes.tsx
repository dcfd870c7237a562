/** The panel's notes in place of a list: an empty list, or an error. */

import React from 'react';

import type { EngineError } from './engine';

/** The note for an empty list of containers. */
export function NoContainers(): React.JSX.Element {
  return (
    <div className="pydock-Note">
      <p>No containers yet. Start one from a notebook:</p>
      <pre>{'%load_ext pydock_jupyter\n%dock run -d IMAGE COMMAND'}</pre>
    </div>
  );
}

/** The note for an empty list of images. */
export function NoImages(): React.JSX.Element {
  return (
    <div className="pydock-Note">
      <p>No images yet. Capture this Python environment:</p>
      <pre>%dock image capture -t here</pre>
    </div>
  );
}

/** An error; `isStale` tells whether outdated lists are shown below. */
export function Problem(props: { problem: EngineError; isStale: boolean }): React.JSX.Element {
  const { problem, isStale } = props;
  return (
    <div className="pydock-Note pydock-mod-problem" role="alert">
      <p>
        <strong>{problem.status === 404 ? 'PyDock is not enabled in this Jupyter server.' : problem.message}</strong>
      </p>
      {problem.status === 404 ? (
        <>
          <p>Enable it, then restart the server:</p>
          <pre>jupyter server extension enable pydock_jupyter</pre>
        </>
      ) : problem.status === 401 || problem.status === 403 ? (
        <p>{problem.hint === '' ? 'Reload the page to log in again.' : problem.hint}</p>
      ) : (
        problem.hint !== '' && <p>{problem.hint}</p>
      )}
      {isStale && <p>The lists below may be out of date.</p>}
    </div>
  );
}
