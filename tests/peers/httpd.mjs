// An application on node's own HTTP server, with WebSockets of npm `ws`; see tests/support/backend.rs.
// `httpd.mjs [PORT]` listens on 127.0.0.1 and tells each request: `{event: "request", method, path, headers}`, and
// `{event: "body", length, trailers}` where its body has ended.
import { createRequire } from "node:module";
import { createServer } from "node:http";
const { WebSocketServer } = createRequire(`${process.env.WSGATE_TEST_NODE}/`)("ws");
const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

const listeners = new Set(); // to events
let events = 0;

const app = {
  "/": (_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>app</title>");
  },
  // What came goes back as it comes, its trailers too.
  "/mirror": (request, response) => {
    response.setHeader("Content-Type", "application/octet-stream");
    if (request.headers.te?.includes("trailers")) response.setHeader("Trailer", "X-Sum");
    request.on("data", (data) => response.write(data) || (request.pause(), response.once("drain", () => request.resume())));
    request.on("end", () => {
      if (response.hasHeader("Trailer")) response.addTrailers({ "X-Sum": request.trailers["x-sum"] ?? "none" });
      response.end();
    });
  },
  // An event at once, and one more for each call of /next.
  "/events": (_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    listeners.add(response);
    response.on("close", () => (listeners.delete(response), tell({ event: "left" })));
    response.write(`data: ${++events}\n\n`);
  },
  "/next": (_, response) => {
    events += 1;
    for (const listener of listeners) listener.write(`data: ${events}\n\n`);
    response.writeHead(204).end();
  },
  // Answers before it has read the body.
  "/early": (_, response) => response.writeHead(413, { "Content-Type": "text/plain" }).end("too much"),
  "/hints": (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" });
    response.end("hinted");
  },
};

const server = createServer((request, response) => {
  const { method, url, headers } = request;
  tell({ event: "request", method, path: url, headers });
  let length = 0;
  request.on("data", (data) => (length += data.length));
  request.on("end", () => tell({ event: "body", length, trailers: request.trailers }));
  const answer = app[url.replace(/^\/app\b/, "").replace(/\?.*/, "") || "/"];
  if (answer) answer(request, response);
  else response.writeHead(404, { "Content-Type": "text/plain" }).end("not here");
});

const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, stream, head) => {
  sockets.handleUpgrade(request, stream, head, (socket) => {
    tell({ event: "open", path: request.url, headers: request.headers });
    socket.on("message", (data, binary) => {
      const close = !binary && data.length < 200 && /^close (\d+) ?(.*)$/.exec(data.toString());
      if (close) socket.close(Number(close[1]), close[2]);
      else socket.send(data, { binary });
    });
    socket.on("error", () => {});
    socket.on("close", (code, reason) => tell({ event: "close", path: request.url, code, reason: reason.toString() }));
  });
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => tell({ event: "listening", port: server.address().port }));
