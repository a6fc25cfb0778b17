// The pairing protocol the usual way on Node: one process, one Map of clients, JSON in and JSON out.
import { randomUUID } from 'node:crypto';
import { WebSocket, WebSocketServer } from 'ws';

const host = '127.0.0.1';
const port = Number(process.env.PORT || 8080);
const maxMessagesPerSecond = Number(process.env.MAX_MSG_PER_SECOND || 40);

const clients = new Map();
const queue = [];

// The one field of a message that goes to the partner.
const relayed = { offer: 'sdp', answer: 'sdp', ice: 'candidate' };

const send = (client, message) => {
  if (client.socket.readyState === WebSocket.OPEN) client.socket.send(JSON.stringify(message));
};
const sendError = (client, code, message) => send(client, { type: 'error', code, message });

function enqueue(client) {
  if (queue.includes(client)) return;
  const partner = queue.shift();
  if (!partner) {
    queue.push(client);
    return;
  }
  const roomId = randomUUID();
  client.partnerId = partner.id;
  partner.partnerId = client.id;
  send(partner, { type: 'matched', roomId, partnerId: client.id });
  send(client, { type: 'matched', roomId, partnerId: partner.id });
}

function dequeue(client) {
  const index = queue.indexOf(client);
  if (index >= 0) queue.splice(index, 1);
}

function unpair(client) {
  const partner = clients.get(client.partnerId);
  client.partnerId = null;
  if (!partner) return;
  partner.partnerId = null;
  send(partner, { type: 'partner-left' });
  enqueue(partner);
}

function isOverRateLimit(client) {
  const now = Date.now();
  if (now - client.windowStart >= 1000) {
    client.windowStart = now;
    client.windowCount = 0;
  }
  client.windowCount += 1;
  return client.windowCount > maxMessagesPerSecond;
}

function handleMessage(client, data) {
  if (isOverRateLimit(client)) return sendError(client, 'RATE_LIMIT', 'Too many messages');
  const message = JSON.parse(data);

  switch (message.type) {
    case 'auth':
      client.userId = message.userId;
      break;
    case 'available':
      if (client.partnerId) sendError(client, 'ALREADY_PAIRED', 'Already paired with a partner');
      else enqueue(client);
      break;
    case 'offer':
    case 'answer':
    case 'ice': {
      const partner = clients.get(client.partnerId);
      if (!partner) return sendError(client, 'NOT_PAIRED', 'Not paired with a partner');
      const field = relayed[message.type];
      send(partner, { type: message.type, from: client.id, [field]: message[field] });
      break;
    }
    case 'next':
      if (client.partnerId) unpair(client);
      else sendError(client, 'NOT_PAIRED', 'Not paired with a partner');
      break;
    case 'leave':
      dequeue(client);
      unpair(client);
      break;
    case 'ping':
      send(client, { type: 'pong' });
      break;
    default:
      sendError(client, 'UNKNOWN_TYPE', 'Unknown message type');
  }
}

const server = new WebSocketServer({ host, port, path: '/ws', perMessageDeflate: false, maxPayload: 1048576 });

server.on('connection', (socket) => {
  const client = { id: randomUUID(), socket, partnerId: null, userId: null, windowStart: 0, windowCount: 0 };
  clients.set(client.id, client);
  socket.on('message', (data) => {
    try {
      handleMessage(client, data);
    } catch {
      // Not JSON, null, or nested too deeply to be written again.
      sendError(client, 'INVALID_FORMAT', 'Invalid message format');
    }
  });
  socket.on('error', () => {}); // a protocol error; `close` follows
  socket.on('close', () => {
    clients.delete(client.id);
    dequeue(client);
    unpair(client);
  });
  send(client, { type: 'ready', clientId: client.id });
});

server.on('listening', () => console.log(`listening on ${host}:${port}`));
