// A backend that reads requests as leniently as node can. For each connection that has ended it prints one line: the port of
// its other end, and every whole request, as JSON. It ends with its standard input.
import http from 'node:http';

const readings = new Map();

const server = http.createServer({ insecureHTTPParser: true, requireHostHeader: false }, (request, response) => {
  const body = [];
  request.on('data', piece => body.push(piece));
  request.on('end', () => {
    readings.get(request.socket)?.push([request.method, request.url, Buffer.concat(body).toString('latin1')]);
    response.end('ok');
  });
  request.on('error', () => {});
});
server.on('connection', socket => {
  const port = socket.remotePort;
  readings.set(socket, []);
  socket.on('error', () => {});
  socket.on('close', () => {
    console.log(`${port} ${JSON.stringify(readings.get(socket))}`);
    readings.delete(socket);
  });
});
server.on('connect', (request, socket) => {
  readings.get(socket)?.push([request.method, request.url, '']);
  socket.end();
});
server.on('clientError', (_, socket) => socket.destroy());
server.listen(0, '127.0.0.1', () => console.log(`0 ${server.address().port}`));
process.stdin.resume().on('end', () => process.exit(0));
