/** Attends the frames that `open_port()` has put into notebooks. */

import { FrameAttendant } from './attendant';
import type { EngineClient } from './engine';

const FRAME = 'iframe.pydock-frame';

/** Watch for frames in the page, now and later: a frame tells by its "load" event that it is there. */
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

/** Watch the container of one frame until the frame is taken out of the page. */
function attendFrame(client: EngineClient, frame: HTMLIFrameElement, name: string, onEnd: () => void): void {
  const attendant = new FrameAttendant(
    client,
    name,
    () => frame.isConnected && frame.getClientRects().length > 0,
    () => {
      reloadFrame(frame, frame.src);
    }
  );
  // Not attached as a widget: the notebook drops its outputs without telling the widgets in them.
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

/** Load the page again that a frame is at now; its start, if it went to another origin, where it cannot be seen. */
export function reloadFrame(frame: HTMLIFrameElement, start: string): void {
  try {
    frame.contentWindow?.location.reload();
  } catch {
    frame.src = start;
  }
}
