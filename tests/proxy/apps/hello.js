// Node's own server; argv: the socket.
const http = require("http");
const fs = require("fs");
const release = process.env.SHIPIT_RELEASE;
const server = http.createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    if (request.method === "POST") fs.appendFileSync(process.env.NOTES, body + "\n");
    response.writeHead(200, { "Content-Length": release.length });
    response.end(release);
  });
});
server.listen(process.argv[2]);
process.on("SIGTERM", () => process.exit());
