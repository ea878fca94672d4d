//! One script a method, each within one partition, so that Redis Cluster can place it.
//!
//! A script says first which call it answers, so that an answer is never taken for another's,
//! then how it went, then the instant. Instants are whole milliseconds far below 2^53, where Lua
//! would begin to round, and never go back within a record.
//!
//! A record is one string: a head of 50 bytes, which the script judges by, and the bytes that
//! only hapax reads. The head is
//!
//! ```text
//! 1 · state (1) · claim (16) · claimed at (8) · written at (8) · expires at (8; 0 for never)
//! ```
//!
//! and eight hexadecimal digits of the SHA-1 of the Redis key and these 42 bytes: a head whose
//! bits flipped must not be taken for one that has expired. Every write of a record is one SET;
//! the commands of a script reach the append-only file as one transaction.
//!
//! A live claim has no time to live. A settled record has one, a day longer than it is kept: the
//! sweep takes it out together with its index entry, and Redis does so only where nobody sweeps.

use redis::Script;

/// The server's clock in whole milliseconds since 1970.
pub(super) const SERVER_CLOCK: &str =
    "(function() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end)()";

/// How a call went: the key is held, or it was not held by the claim that was named.
pub(super) const HELD: i64 = 0;
/// It was done; or for a read, the key is vacant.
pub(super) const DONE: i64 = 1;
/// The record is damaged.
pub(super) const DAMAGED: i64 = 2;
/// The store's mark is not there.
pub(super) const LOST: i64 = 3;

/// The score of an outstanding record in the index, beyond every instant.
pub(super) const OUTSTANDING: &str = "1000000000000000";
/// The score of a damaged record that a sweep came upon, which leaves it alone from then on.
const FOUND_DAMAGED: &str = "2000000000000000";

/// Lets a script write where the server's memory is used up: it settles a claim, or makes room.
const MAY_EXCEED_MEMORY: &str = "#!lua flags=allow-oom\n";

/// Numbers go to commands as they are: Redis writes whole ones with all their digits.
const HEAD: &str = "
local clock = {clock}
";

/// Judges the record of a script. `KEYS`: record, mark, index, unknown.
///
/// Written without functions and tables, which would be made anew in every call.
const RECORD: &str = "
local key, member = KEYS[1], string.sub(KEYS[1], -16)
local raw = redis.call('GETRANGE', key, 0, 49)
local version, state, claim, claimed, written, expires
if raw ~= '' then
    if #raw < 50 or string.sub(raw, 43) ~= string.sub(redis.sha1hex(key .. string.sub(raw, 1, 42)), 1, 8) then
        return {ARGV[1], 2, clock}
    end
    version, state, claim, claimed, written, expires = struct.unpack('>BBc16I8I8I8', raw)
    if version ~= 1 then return {ARGV[1], 2, clock} end
end
local now = clock
local live = state and (expires == 0 or expires > clock)
if live and written > now then now = written end
";

/// Writes a record over what was there. `ARGV` from the third on: claim, state, lifetime, value.
const PUT: &str = "
local to, till = tonumber(ARGV[4]), 0
if ARGV[5] ~= '' then till = now + tonumber(ARGV[5]) end
local head = struct.pack('>BBc16I8I8I8', 1, to, ARGV[3], since, now, till)
local value = head .. string.sub(redis.sha1hex(key .. head), 1, 8) .. ARGV[6]
if till == 0 then
    redis.call('SET', key, value)
    if state ~= 0 then redis.call('ZADD', KEYS[3], '{outstanding}', member) end
else
    redis.call('SET', key, value, 'PX', till - now + 86400000)
    redis.call('ZADD', KEYS[3], till, member)
end
if to == 3 then
    redis.call('ZADD', KEYS[4], now, member)
elseif state == 3 then
    redis.call('ZREM', KEYS[4], member)
end
return {ARGV[1], 1, now}";

/// `ARGV`: call, mark, claim, state, lifetime, value. Goes on with [`PUT`].
const INSERT: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {ARGV[1], 3, clock} end
if live then return {ARGV[1], 0, now, redis.call('GET', key)} end
local since = now
";

/// `ARGV`: call, expected claim, claim, state, lifetime, value. Goes on with [`PUT`].
const REPLACE: &str = "
if not live or claim ~= ARGV[2] then return {ARGV[1], 0, now} end
local since = now
if ARGV[3] == claim then since = claimed end
";

/// `ARGV`: call, expected claim.
const REMOVE: &str = "
if not live or claim ~= ARGV[2] then return {ARGV[1], 0, now} end
redis.call('DEL', key)
redis.call('ZREM', KEYS[3], member)
redis.call('ZREM', KEYS[4], member)
return {ARGV[1], 1, now}";

/// `ARGV`: call.
const READ: &str = "
if live then return {ARGV[1], 0, now, redis.call('GET', key)} end
return {ARGV[1], 1, now}";

/// What a sweep may remove. `KEYS`: index. `ARGV`: call, how many at most. Answers with the size
/// of the index and the record keys.
const DUE: &str = "
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock, 'LIMIT', 0, ARGV[2])
return {ARGV[1], 1, clock, redis.call('ZCARD', KEYS[1]), due}";

/// Removes those of some records that have expired, and index entries that have no record.
/// `KEYS`: index, unknown, records. `ARGV`: call. Answers with how many it removed.
const DROP: &str = "
local function expiry(key)
    local raw = redis.call('GETRANGE', key, 0, 49)
    if raw == '' then return nil, false end
    local head = string.sub(raw, 1, 42)
    if #raw < 50 or string.sub(raw, 43) ~= string.sub(redis.sha1hex(key .. head), 1, 8) then return nil, true end
    local version, _, _, _, _, expires = struct.unpack('>BBc16I8I8I8', raw)
    if version ~= 1 then return nil, true end
    return expires, false
end
local removed = 0
for number = 3, #KEYS do
    local key = KEYS[number]
    local member = string.sub(key, -16)
    local expires, damaged = expiry(key)
    if damaged then
        redis.call('ZADD', KEYS[1], '{damaged}', member)
    elseif not expires or (expires ~= 0 and expires <= clock) then
        redis.call('DEL', key)
        redis.call('ZREM', KEYS[2], member)
        removed = removed + redis.call('ZREM', KEYS[1], member)
    elseif expires == 0 then
        redis.call('ZADD', KEYS[1], '{outstanding}', member)
    else
        redis.call('ZADD', KEYS[1], expires, member)
    end
end
return {ARGV[1], 1, clock, removed}";

/// Figures of a partition. `KEYS`: index, unknown. `ARGV`: call. Answers with its records, those
/// outstanding, those unknown, and when the oldest of these was written.
const FIGURES: &str = "
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {ARGV[1], 1, clock, redis.call('ZCARD', KEYS[1]),
    redis.call('ZCOUNT', KEYS[1], '{outstanding}', '{outstanding}'), redis.call('ZCARD', KEYS[2]),
    oldest[2] or ''}";

/// Makes what the store says of itself, where there is nothing. `KEYS`: store. `ARGV`: call,
/// version, secret, mark.
const MAKE: &str = "
local made = redis.call('EXISTS', KEYS[1]) == 0
if made then redis.call('HSET', KEYS[1], 'version', ARGV[2], 'secret', ARGV[3], 'mark', ARGV[4]) end
local is = redis.call('HMGET', KEYS[1], 'version', 'secret', 'mark')
return {ARGV[1], made and 1 or 0, clock, is[1] or '', is[2] or '', is[3] or ''}";

/// Marks a partition that has no mark. `KEYS`: mark. `ARGV`: call, mark. Answers with the mark
/// that was there.
const MARK: &str = "
local is = redis.call('GET', KEYS[1])
if not is then redis.call('SET', KEYS[1], ARGV[2]) end
return {ARGV[1], is and 0 or 1, clock, is or ''}";

/// Record keys of a partition. `KEYS`: index, unknown. `ARGV`: call, which, where to go on.
/// Answers with where to go on (0 when that was all) and the keys.
const MEMBERS: &str = "
if ARGV[2] == 'outstanding' then
    return {ARGV[1], 1, clock, '0', redis.call('ZRANGEBYSCORE', KEYS[1], '{outstanding}', '{outstanding}')}
end
if ARGV[2] == 'unknown' then return {ARGV[1], 1, clock, '0', redis.call('ZRANGE', KEYS[2], 0, -1)} end
local part = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', 1000)
local members = {}
for number = 1, #part[2], 2 do members[#members + 1] = part[2][number] end
return {ARGV[1], 1, clock, part[1], members}";

/// A script, and the name by which a server knows it once it was loaded.
pub(super) struct Program {
    pub(super) code: String,
    pub(super) hash: String,
}

impl Program {
    fn new(parts: &[&str], clock: &str) -> Self {
        let code = parts
            .concat()
            .replace("{clock}", clock)
            .replace("{outstanding}", OUTSTANDING)
            .replace("{damaged}", FOUND_DAMAGED);
        let hash = Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }
}

/// The scripts with the store's clock in them.
pub(super) struct Scripts {
    pub(super) insert: Program,
    pub(super) replace: Program,
    pub(super) remove: Program,
    pub(super) read: Program,
    pub(super) due: Program,
    pub(super) drop: Program,
    pub(super) figures: Program,
    pub(super) make: Program,
    pub(super) mark: Program,
    pub(super) members: Program,
}

impl Scripts {
    /// `clock` is the expression of a script's instant.
    pub(super) fn new(clock: &str) -> Self {
        let program = |parts: &[&str]| Program::new(parts, clock);
        Self {
            insert: program(&[HEAD, RECORD, INSERT, PUT]),
            replace: program(&[MAY_EXCEED_MEMORY, HEAD, RECORD, REPLACE, PUT]),
            remove: program(&[MAY_EXCEED_MEMORY, HEAD, RECORD, REMOVE]),
            read: program(&[HEAD, RECORD, READ]),
            due: program(&[HEAD, DUE]),
            drop: program(&[MAY_EXCEED_MEMORY, HEAD, DROP]),
            figures: program(&[HEAD, FIGURES]),
            make: program(&[HEAD, MAKE]),
            mark: program(&[HEAD, MARK]),
            members: program(&[HEAD, MEMBERS]),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> [&Program; 10] {
        [
            &self.insert,
            &self.replace,
            &self.remove,
            &self.read,
            &self.due,
            &self.drop,
            &self.figures,
            &self.make,
            &self.mark,
            &self.members,
        ]
    }
}
