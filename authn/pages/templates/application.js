"use strict";
const echo = document.getElementById("echo");
const log = document.getElementById("log");
const text = document.getElementById("text");
const say = (line) => { log.textContent = [...log.textContent.split("\n").slice(-7), line].join("\n").trim(); };
let socket = null;
const open = () => {
  socket = new WebSocket("wss://" + location.host + "/ws");
  socket.onopen = () => say("connected");
  socket.onmessage = (event) => say("echo: " + event.data);
  socket.onclose = () => { say("closed"); socket = null; };
};
echo.hidden = false;
open();
echo.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  if (!socket) open();
  else if (socket.readyState === WebSocket.OPEN && text.value) { socket.send(text.value); text.value = ""; }
};
