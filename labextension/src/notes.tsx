/** What the panel says in place of a list: nothing there yet, or why the list cannot be had. */

import React from 'react';

import type { EngineError } from './engine';

/** There are no containers yet. */
export function NoContainers(): React.JSX.Element {
  return (
    <div className="pydock-Note">
      <p>No containers yet. Start one from a notebook:</p>
      <pre>{'%load_ext pydock_jupyter\n%dock run -d IMAGE COMMAND'}</pre>
    </div>
  );
}

/** There are no images yet. */
export function NoImages(): React.JSX.Element {
  return (
    <div className="pydock-Note">
      <p>No images yet. Make one from this Python environment:</p>
      <pre>%dock image capture -t here</pre>
    </div>
  );
}

/** The lists cannot be had; `isStale` tells whether older ones are shown below. */
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
      {isStale && <p>What is shown below may be out of date.</p>}
    </div>
  );
}
