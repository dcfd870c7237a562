/** Watches the frames of `open_port()` in notebooks. */

import { FrameAttendant } from './attendant';
import type { EngineClient } from './engine';

const FRAME = 'iframe.pydock-frame';

/** Watch the present and future frames of the page; a new frame announces itself by its "load" event. */
export function attendFrames(client: EngineClient): void {
  const attended = new WeakSet<HTMLIFrameElement>();
  const attend = (target: EventTarget | null): void => {
    if (target instanceof HTMLIFrameElement && target.matches(FRAME) && !attended.has(target)) {
      const name = target.dataset.pydockName;
      if (name !== undefined) {
        attended.add(target);
        attendFrame(client, target, name, () => attended.delete(target));
      }
    }
  };
  document.addEventListener(
    'load',
    event => {
      attend(event.target);
    },
    true
  );
  document.querySelectorAll(FRAME).forEach(attend);
}

/** Watch a frame's container until the frame leaves the page. */
function attendFrame(client: EngineClient, frame: HTMLIFrameElement, name: string, onEnd: () => void): void {
  const attendant = new FrameAttendant(
    client,
    name,
    () => frame.isConnected && frame.getClientRects().length > 0,
    () => {
      reloadFrame(frame, frame.src);
    }
  );
  // Not attached as a widget: a notebook removes its outputs without notifying the widgets in them.
  frame.before(attendant.banner.node);
  const observer = new MutationObserver(() => {
    if (!frame.isConnected) {
      observer.disconnect();
      attendant.dispose();
      onEnd();
    }
  });
  observer.observe(document.body, { childList: true, subtree: true });
}

/** Reload a frame's current page, or its start page if the frame has left the origin. */
export function reloadFrame(frame: HTMLIFrameElement, start: string): void {
  try {
    frame.contentWindow?.location.reload();
  } catch {
    frame.src = start;
  }
}
