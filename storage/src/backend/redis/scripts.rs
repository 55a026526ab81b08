//! Each change of a record as one step inside of the server. The fields of a session: `v` its row, `g` its generation, `i`
//! when idleness ends it, `a` when it ends, `f` when its refresh is due, `n` when that is tried next, `c` the attempt that
//! claimed that last, `h` which process did and until when it holds the claim, `x` that it was revoked.
//!
//! What compares times of several processes asks the server for its own: their clocks may differ.
//!
//! A repetition writes what it finds once more: `WAIT` counts replicas only for what its own connection has written.

use crate::redis::Script;

/// Every script.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) commit: Script,
    pub(super) revoke: Script,
    pub(super) own: Script,
    pub(super) end_before: Script,
    pub(super) tokens: Script,
    pub(super) touch: Script,
    pub(super) forget: Script,
    pub(super) postpone: Script,
    pub(super) spend: Script,
    pub(super) left: Script,
    pub(super) put: Script,
    pub(super) remove: Script,
    pub(super) claim: Script,
    pub(super) release: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: Script::new(CREATE),
            commit: Script::new(COMMIT),
            revoke: Script::new(REVOKE),
            own: Script::new(OWN),
            end_before: Script::new(END_BEFORE),
            tokens: Script::new(TOKENS),
            touch: Script::new(TOUCH),
            forget: Script::new(FORGET),
            postpone: Script::new(POSTPONE),
            spend: Script::new(SPEND),
            left: Script::new(LEFT),
            put: Script::new(PUT),
            remove: Script::new(REMOVE),
            claim: Script::new(CLAIM),
            release: Script::new(RELEASE),
        }
    }
}

/// KEYS session, tokens; ARGV row, generation, idle, end, refresh due, refresh next, tokens, when to forget. Nothing is
/// empty text for the optional ones. A repetition changes nothing.
const CREATE: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'a', redis.call('HGET', KEYS[1], 'a'))
  return 1
end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'g', ARGV[2], 'a', ARGV[4])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'i', ARGV[3]) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'f', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'n', ARGV[6]) end
redis.call('PEXPIREAT', KEYS[1], ARGV[8])
redis.call('SET', KEYS[2], ARGV[7], 'PXAT', ARGV[8])
return 1";

/// KEYS session, tokens; ARGV as CREATE, then the generation that it replaces, and which process is at the end of a refresh;
/// nothing in the middle of one. 1 saved, 0 somebody was earlier, -1 gone. Idle time only moves forward. At the end the claim on
/// the refresh ends, and takes no room any more, unless another process holds it by now: that one has sent the token that would be saved. A repetition of what was saved is saved: the row is sealed
/// with a fresh nonce, so it is the same only if it is this very attempt.
const COMMIT: &str = "\
local old = redis.call('HMGET', KEYS[1], 'g', 'x', 'i', 'v', 'h')
if not old[1] or old[2] then return -1 end
if old[1] == ARGV[2] and old[4] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'g', ARGV[2])
  return 1
end
if old[1] ~= ARGV[9] then return 0 end
if ARGV[10] ~= '' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local holder, till = string.match(old[5] or '', '^(%x+) (%d+)$')
  if holder and holder ~= ARGV[10] and now < tonumber(till) then return 0 end
  redis.call('HDEL', KEYS[1], 'c', 'h')
end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'g', ARGV[2], 'a', ARGV[4])
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], 'i')
elseif not old[3] or tonumber(old[3]) < tonumber(ARGV[3]) then redis.call('HSET', KEYS[1], 'i', ARGV[3]) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'f', ARGV[5]) else redis.call('HDEL', KEYS[1], 'f') end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'n', ARGV[6]) else redis.call('HDEL', KEYS[1], 'n') end
redis.call('PEXPIREAT', KEYS[1], ARGV[8])
redis.call('SET', KEYS[2], ARGV[7], 'PXAT', ARGV[8])
return 1";

/// KEYS session, tokens; ARGV how long an end is remembered at most, in ms. Marks it, and wipes its tokens and view; it is kept as
/// a tombstone until its time, or that one. {1, what its row was, if it was there}, or {-1} gone.
const REVOKE: &str = "\
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {-1} end
local row = redis.call('HGET', KEYS[1], 'v')
redis.call('HSET', KEYS[1], 'x', '1')
redis.call('HDEL', KEYS[1], 'v', 'f', 'n', 'c', 'h')
local life = tonumber(ARGV[1])
if redis.call('PTTL', KEYS[1]) > life then
  local time = redis.call('TIME')
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + life))
end
return {1, row}";

/// KEYS sessions of a user; ARGV session, its end, when to forget. Kept until the last session ends.
const OWN: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now))
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local known = redis.call('PTTL', KEYS[1])
if known < 0 or now + known < tonumber(ARGV[3]) then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 1";

/// KEYS epoch; ARGV before when sessions are over, when to forget. Both only move forward, but for a later end that is to be forgotten
/// sooner.
const END_BEFORE: &str = "\
local old = redis.call('GET', KEYS[1])
if old and tonumber(old) >= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], old, 'KEEPTTL')
  local time = redis.call('TIME')
  local till = time[1] * 1000 + math.floor(time[2] / 1000) + redis.call('PTTL', KEYS[1])
  if till < tonumber(ARGV[2]) then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
  return 1
end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return 1";

/// KEYS session, tokens. Both as they are at one moment.
const TOKENS: &str = "\
return {redis.call('HMGET', KEYS[1], 'v', 'g', 'i', 'a', 'f', 'n', 'x'), redis.call('GET', KEYS[2])}";

/// KEYS session; ARGV when idleness ends it. Forward only, never past its end, never of one that was revoked or has none.
const TOUCH: &str = "\
local old = redis.call('HMGET', KEYS[1], 'i', 'a', 'x')
if not old[1] or old[3] then return 0 end
local new = math.min(tonumber(ARGV[1]), tonumber(old[2]))
if new <= tonumber(old[1]) then return 0 end
redis.call('HSET', KEYS[1], 'i', string.format('%.0f', new))
return 1";

/// KEYS session; ARGV when it was seen to be over. Forgets it if it was: 1. Its tokens are not named here, as a script may only
/// name what its user may read.
const FORGET: &str = "\
local old = redis.call('HMGET', KEYS[1], 'i', 'a')
local now = tonumber(ARGV[1])
if not old[2] then return 0 end
if tonumber(old[2]) > now and (not old[1] or tonumber(old[1]) > now) then return 0 end
redis.call('DEL', KEYS[1])
return 1";

/// KEYS value; ARGV mark of this attempt, when to forget. 1 for the first attempt and its repetitions, else 0.
const SPEND: &str = "\
local old = redis.call('GET', KEYS[1])
if old and old ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return 1";

/// KEYS session; ARGV from, to, mark of this attempt, process, how long it holds the claim in ms. What the next try stands
/// at then: {1, to} moved, {0, n} somebody was earlier or another process holds it, {-1} it is over. A process whose clock
/// is ahead sees what others have claimed as due: until the server's own time says so it is not.
const POSTPONE: &str = "\
local old = redis.call('HMGET', KEYS[1], 'n', 'a', 'i', 'x', 'c', 'h')
if not old[2] or old[4] then return {-1} end
if not old[1] then return {-1} end
if old[1] == ARGV[2] and old[5] == ARGV[3] then return {1, ARGV[2]} end
if old[1] ~= ARGV[1] then return {0, old[1]} end
local due = tonumber(ARGV[1])
if tonumber(old[2]) <= due or (old[3] and tonumber(old[3]) <= due) then
  redis.call('HDEL', KEYS[1], 'n')
  return {-1}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, till = string.match(old[6] or '', '^(%x+) (%d+)$')
if holder and holder ~= ARGV[4] and now < tonumber(till) then return {0, old[1]} end
redis.call('HSET', KEYS[1], 'n', ARGV[2], 'c', ARGV[3], 'h', ARGV[4] .. ' ' .. string.format('%.0f', now + ARGV[5]))
return {1, ARGV[2]}";

/// KEYS what was left; ARGV how it begins if it is known. What is there, 1 if it is that.
const LEFT: &str = "\
local value = redis.call('GET', KEYS[1])
if value and ARGV[1] ~= '' and string.sub(value, 1, #ARGV[1]) == ARGV[1] then return 1 end
return value";

/// KEYS what is left, claim on the name; ARGV it, when to forget, who holds the claim. 1 left, 0 somebody else holds it, or nobody.
const PUT: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return 1";

/// KEYS what was left, claim on the name; ARGV who holds the claim. 1 gone, 0 somebody else holds it, or nobody.
const REMOVE: &str = "\
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1";

/// KEYS claim; ARGV who claims, for how long in ms, whether one that is over begins anew. 1 claimed, 0 somebody else holds it, or it is over: what
/// was over for a moment may have been another one's meanwhile.
const CLAIM: &str = "\
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] and (held or ARGV[3] == '') then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// KEYS claim; ARGV who holds it.
const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1";
