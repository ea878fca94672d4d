//! One script a method; claims and completions may be of several records.
//!
//! In a Redis Cluster, which has to place them, those are of one partition. All others are anyway.
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
/// The server's memory is used up.
pub(super) const FULL: i64 = 5;

/// The version of a store that is being filled.
pub(super) const UNFINISHED: &str = "unfinished";

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

/// Claims keys. `KEYS` of each: record, mark, index, unknown. `ARGV`: call, mark; of each: 18 bytes
/// of its head and its lifetime (8 bytes, 0 for ever, else one more), and its value. Answers for
/// each with the instant of its claim, what holds the key and since when it is looked at, or a
/// negative number.
///
/// Most keys are vacant, and for them the first `SET` is all that is needed. It fails before
/// anything is written where the server's memory is used up; what is held is shown all the same.
const INSERT: &str = "
local said, arg, marks = {ARGV[1], 1, clock}, 3, {}
for at = 2, #KEYS, 4 do marks[#marks + 1] = KEYS[at] end
marks = redis.call('MGET', unpack(marks))
for at = 1, #KEYS, 4 do
    local key, new, outcome = KEYS[at], ARGV[arg], -{lost}
    if marks[#said - 2] == ARGV[2] then
        local life = struct.unpack('>I8', new, 19)
        local till = life > 0 and clock + life - 1 or 0
        local head = string.sub(new, 1, 18) .. struct.pack('>I8I8I8', clock, clock, till)
        local text = head .. string.sub(redis.sha1hex(key .. head), 1, 8) .. ARGV[arg + 1]
        local set, state
        if till == 0 then
            set = redis.pcall('SET', key, text, 'NX')
        else
            set = redis.pcall('SET', key, text, 'PX', life + 86399999, 'NX')
        end
        if set and set.ok then
            outcome = clock
        else
            local raw = redis.pcall('GET', key)
            local version, claim, claimed, written, expires
            if not raw then
                version, expires = 1, 1
            elseif type(raw) == 'string' and #raw >= 50 and string.sub(raw, 43, 50) ==
                string.sub(redis.sha1hex(key .. string.sub(raw, 1, 42)), 1, 8) then
                version, state, claim, claimed, written, expires = struct.unpack('>BBc16I8I8I8', raw)
            end
            if version ~= 1 then
                outcome = -{damaged_record}
            elseif expires == 0 or expires > clock then
                outcome = {written > clock and written or clock, raw}
            elseif set then
                if string.sub(set.err, 1, 3) ~= 'OOM' then return set end
                outcome = -{full}
            else
                if till == 0 then
                    redis.call('SET', key, text)
                else
                    redis.call('SET', key, text, 'PX', life + 86399999)
                end
                outcome = clock
            end
        end
        if outcome == clock then
            local to, member = string.byte(new, 2), string.sub(key, -16)
            redis.call('ZADD', KEYS[at + 2], till == 0 and '{outstanding}' or till, member)
            if to == 3 then
                redis.call('ZADD', KEYS[at + 3], clock, member)
            elseif state == 3 then
                redis.call('ZREM', KEYS[at + 3], member)
            end
        end
    end
    said[#said + 1] = outcome
    arg = arg + 2
end
return said";

/// Replaces records that the claims named still hold. `KEYS` of each: record, mark, index, unknown.
/// `ARGV`: call, nothing; of each: the claim expected, 18 bytes of its head and its lifetime as for
/// a claim, and its value. Answers for each with the instant it was written at, 0 for one that was
/// stale, or a negative number.
const REPLACE: &str = "
local said, arg = {ARGV[1], 1, clock}, 3
for at = 1, #KEYS, 4 do
    local key, new, outcome = KEYS[at], ARGV[arg], 0
    local raw = redis.pcall('GETRANGE', key, 0, 49)
    if raw ~= '' then
        local version, state, claim, claimed, written, expires
        if type(raw) == 'string' and #raw == 50 and string.sub(raw, 43) ==
            string.sub(redis.sha1hex(key .. string.sub(raw, 1, 42)), 1, 8) then
            version, state, claim, claimed, written, expires = struct.unpack('>BBc16I8I8I8', raw)
        end
        if version ~= 1 then
            outcome = -{damaged_record}
        elseif (expires == 0 or expires > clock) and claim == string.sub(new, 1, 16) then
            outcome = written > clock and written or clock
            local life = struct.unpack('>I8', new, 35)
            local to, member = string.byte(new, 18), string.sub(key, -16)
            local till = life > 0 and outcome + life - 1 or 0
            local since = string.sub(new, 19, 34) == claim and claimed or outcome
            local head = string.sub(new, 17, 34) .. struct.pack('>I8I8I8', since, outcome, till)
            local text = head .. string.sub(redis.sha1hex(key .. head), 1, 8) .. ARGV[arg + 1]
            if till == 0 then
                redis.call('SET', key, text)
                if state ~= 0 then redis.call('ZADD', KEYS[at + 2], '{outstanding}', member) end
            else
                redis.call('SET', key, text, 'PX', life + 86399999)
                redis.call('ZADD', KEYS[at + 2], till, member)
            end
            if to == 3 then
                redis.call('ZADD', KEYS[at + 3], outcome, member)
            elseif state == 3 then
                redis.call('ZREM', KEYS[at + 3], member)
            end
        end
    end
    said[#said + 1] = outcome
    arg = arg + 2
end
return said";

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

/// Writes records of another store. `KEYS`: index, unknown, records. `ARGV`: call; of each record
/// the first 42 bytes of its head, and its value.
const FILL: &str = "
for at = 3, #KEYS do
    local key, head, member = KEYS[at], ARGV[at * 2 - 4], string.sub(KEYS[at], -16)
    local text = head .. string.sub(redis.sha1hex(key .. head), 1, 8) .. ARGV[at * 2 - 3]
    local _, state, _, _, written, expires = struct.unpack('>BBc16I8I8I8', head)
    local set
    if expires == 0 then
        set = redis.call('SET', key, text, 'NX')
        expires = '{outstanding}'
    else
        set = redis.call('SET', key, text, 'PX', math.max(expires - clock, 1) + 86400000, 'NX')
    end
    if not set then return {ARGV[1], 0, clock} end
    redis.call('ZADD', KEYS[1], expires, member)
    if state == 3 then redis.call('ZADD', KEYS[2], written, member) end
end
return {ARGV[1], 1, clock}";

/// Begins to fill a store. `KEYS`: store. `ARGV`: call, who fills it. Answers with the mark that
/// it had, or with its version where it cannot be filled.
const BEGIN: &str = "
local is = redis.call('HGET', KEYS[1], 'version')
if is and is ~= '1' then return {ARGV[1], 0, clock, is} end
redis.call('HSET', KEYS[1], 'version', '{unfinished}', 'filler', ARGV[2])
return {ARGV[1], 1, clock, redis.call('HGET', KEYS[1], 'mark') or ''}";

/// Gives a store back that was there before it was begun to be filled. `KEYS`: store. `ARGV`:
/// call, who fills it, version.
const BACK: &str = "
if redis.call('HGET', KEYS[1], 'filler') ~= ARGV[2] then return {ARGV[1], 0, clock, ''} end
redis.call('HSET', KEYS[1], 'version', ARGV[3])
redis.call('HDEL', KEYS[1], 'filler')
return {ARGV[1], 1, clock, ''}";

/// Makes a filled store one. `KEYS`: store. `ARGV`: call, who fills it, version, secret, mark.
const END: &str = "
if redis.call('HGET', KEYS[1], 'filler') ~= ARGV[2] then return {ARGV[1], 0, clock, ''} end
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'secret', ARGV[4], 'mark', ARGV[5])
redis.call('HDEL', KEYS[1], 'filler')
return {ARGV[1], 1, clock, ''}";

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
            .replace("{damaged_record}", &DAMAGED.to_string())
            .replace("{unfinished}", UNFINISHED)
            .replace("{lost}", &LOST.to_string())
            .replace("{full}", &FULL.to_string())
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
    pub(super) fill: Program,
    pub(super) begin: Program,
    pub(super) back: Program,
    pub(super) end: Program,
}

impl Scripts {
    /// `clock` is the expression of a script's instant.
    pub(super) fn new(clock: &str) -> Self {
        let program = |parts: &[&str]| Program::new(parts, clock);
        Self {
            insert: program(&[HEAD, INSERT]),
            replace: program(&[MAY_EXCEED_MEMORY, HEAD, REPLACE]),
            remove: program(&[MAY_EXCEED_MEMORY, HEAD, RECORD, REMOVE]),
            read: program(&[HEAD, RECORD, READ]),
            due: program(&[HEAD, DUE]),
            drop: program(&[MAY_EXCEED_MEMORY, HEAD, DROP]),
            figures: program(&[HEAD, FIGURES]),
            make: program(&[HEAD, MAKE]),
            mark: program(&[HEAD, MARK]),
            members: program(&[HEAD, MEMBERS]),
            fill: program(&[HEAD, FILL]),
            begin: program(&[HEAD, BEGIN]),
            back: program(&[MAY_EXCEED_MEMORY, HEAD, BACK]),
            end: program(&[MAY_EXCEED_MEMORY, HEAD, END]),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> [&Program; 14] {
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
            &self.fill,
            &self.begin,
            &self.back,
            &self.end,
        ]
    }
}
