//! What Redis does as one step, in Lua.
//!
//! Every script that reads or settles for a member checks the lease first, in the same step.
//! All keys of a script are in one slot, but for those of a transaction.

use std::sync::OnceLock;

use redis::Cmd;

/// A script with its hash, by which servers know it.
pub(super) struct Script {
    source: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    const fn new(source: &'static str) -> Self {
        Self { source, hash: OnceLock::new() }
    }

    /// The call by hash.
    pub(super) fn known(&self, keys: &[&str], arguments: &dyn Fn(&mut Cmd)) -> Cmd {
        let hash = || redis::Script::new(self.source).get_hash().to_owned();
        call("EVALSHA", self.hash.get_or_init(hash), keys, arguments)
    }

    /// The call with the source.
    pub(super) fn whole(&self, keys: &[&str], arguments: &dyn Fn(&mut Cmd)) -> Cmd {
        call("EVAL", self.source, keys, arguments)
    }
}

fn call(name: &str, script: &str, keys: &[&str], arguments: &dyn Fn(&mut Cmd)) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len()).arg(keys);
    arguments(&mut command);
    command
}

/// Refuses who does not hold the lease KEYS[1] as ARGV[1] with the generation ARGV[2].
macro_rules! fenced {
    ($rest:literal) => {
        concat!(
            "local lease = redis.call('HMGET', KEYS[1], 'owner', 'generation')
             if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
                 return redis.error_reply('FENCED the lease has another holder')
             end
             ",
            $rest
        )
    };
}

/// Makes a topic. KEYS description; ARGV format, partitions, retention.ms, retention.bytes.
/// Zero where it is there already.
pub(super) static CREATE_TOPIC: Script = Script::new(
    "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
     redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2],
         'retention.ms', ARGV[3], 'retention.bytes', ARGV[4])
     return 1",
);

/// Joins a group, or renews a member's lease. KEYS description, members; ARGV `GROUP/`, member,
/// lease in milliseconds, 1 to join where it is no member (any more). Returns the live members
/// of the group; nil where the topic is gone.
pub(super) static ATTEND: Script = Script::new(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return false end
     local time = redis.call('TIME')
     local now = time[1] * 1000 + math.floor(time[2] / 1000)
     local me = ARGV[1] .. ARGV[2]
     local function renew(member, lease)
         redis.call('HSET', KEYS[2], member, string.format('%.0f %.0f', now + lease, lease))
     end
     if ARGV[4] == '1' or redis.call('HEXISTS', KEYS[2], me) == 1 then renew(me, ARGV[3]) end
     local all, live = redis.call('HGETALL', KEYS[2]), {}
     for i = 1, #all, 2 do
         local till, lease = string.match(all[i + 1], '^(%d+) (%d+)$')
         -- A lease that is longer than it was made is of before the clock was set back.
         if till - now > tonumber(lease) then renew(all[i], lease) end
         if tonumber(till) < now then
             redis.call('HDEL', KEYS[2], all[i])
         elseif string.sub(all[i], 1, #ARGV[1]) == ARGV[1] then
             live[#live + 1] = string.sub(all[i], #ARGV[1] + 1)
         end
     end
     return live",
);

/// The live members of a topic. KEYS members. Returns `GROUP/MEMBER` each.
pub(super) static MEMBERS: Script = Script::new(
    "local time = redis.call('TIME')
     local now = time[1] * 1000 + math.floor(time[2] / 1000)
     local all, live = redis.call('HGETALL', KEYS[1]), {}
     for i = 1, #all, 2 do
         local till = string.match(all[i + 1], '^%d+')
         if tonumber(till) >= now then live[#live + 1] = all[i] end
     end
     return live",
);

/// Takes a partition. KEYS lease, stream; ARGV member, the generation that was seen, group, the
/// id behind which a new group begins. Returns nothing where another was faster, else the new
/// generation, 1 where the owner before went without leaving, and the last id delivered.
pub(super) static CLAIM: Script = Script::new(
    "local lease = redis.call('HMGET', KEYS[1], 'owner', 'generation')
     local generation = lease[2] or '0'
     if generation ~= ARGV[2] then return false end
     if redis.call('EXISTS', KEYS[2]) == 0 then
         return redis.error_reply('MISSING the stream does not exist')
     end
     redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], ARGV[4])
     local last = '0-0'
     for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
         local is_ours = false
         for i = 1, #group, 2 do
             if group[i] == 'name' then is_ours = group[i + 1] == ARGV[3] end
             if group[i] == 'last-delivered-id' and is_ours then last = group[i + 1] end
         end
     end
     generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
     redis.call('HSET', KEYS[1], 'owner', ARGV[1])
     return {generation, lease[1] and 1 or 0, last}",
);

/// Gives a partition back. KEYS lease; ARGV member.
pub(super) static RELEASE: Script = Script::new(
    "if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
     redis.call('HDEL', KEYS[1], 'owner')
     redis.call('HINCRBY', KEYS[1], 'generation', 1)
     return 1",
);

/// Takes over what owners before had out. KEYS lease, stream; ARGV member, generation, group,
/// the id to begin with, how many. Counts no delivery. Returns the id to go on with (0-0 at the
/// end) and the entries, each with its id, fields and count of deliveries.
pub(super) static INHERIT: Script = Script::new(fenced!(
    "local claimed = redis.call('XAUTOCLAIM', KEYS[2], ARGV[3], ARGV[1], 0, ARGV[4],
         'COUNT', ARGV[5], 'JUSTID')
     local ids, entries, counts = claimed[2], {}, {}
     if #ids > 0 then
         for _, pending in ipairs(redis.call('XPENDING', KEYS[2], ARGV[3], ids[1], ids[#ids],
                 #ids)) do
             counts[pending[1]] = pending[4]
         end
     end
     for _, id in ipairs(ids) do
         local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
         if entry then entries[#entries + 1] = {id, entry[2], counts[id] or 1} end
     end
     if claimed[1] == '0-0' then
         for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], ARGV[3])) do
             local name, pending
             for i = 1, #consumer, 2 do
                 if consumer[i] == 'name' then name = consumer[i + 1] end
                 if consumer[i] == 'pending' then pending = consumer[i + 1] end
             end
             if name ~= ARGV[1] and pending == 0 then
                 redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[3], name)
             end
         end
     end
     return {claimed[1], entries}"
));

/// Reads new entries. KEYS lease, stream; ARGV member, generation, group, how many.
pub(super) static READ: Script = Script::new(fenced!(
    "return redis.call('XREADGROUP', 'GROUP', ARGV[3], ARGV[1], 'COUNT', ARGV[4],
         'STREAMS', KEYS[2], '>')"
));

/// Acknowledges entries. KEYS lease, stream; ARGV member, generation, group, ids.
pub(super) static ACKNOWLEDGE: Script = Script::new(fenced!(
    "for first = 4, #ARGV, 1000 do
         redis.call('XACK', KEYS[2], ARGV[3], unpack(ARGV, first, math.min(first + 999, #ARGV)))
     end
     return 1"
));

/// Counts deliveries. KEYS lease, stream; ARGV member, generation, group, then id and count of
/// each.
pub(super) static COUNT: Script = Script::new(fenced!(
    "for i = 4, #ARGV, 2 do
         redis.call('XCLAIM', KEYS[2], ARGV[3], ARGV[1], 0, ARGV[i], 'RETRYCOUNT', ARGV[i + 1],
             'JUSTID')
     end
     return 1"
));

/// Moves a group. KEYS lease, stream; ARGV member, generation, group, the id to go on behind.
pub(super) static SEEK: Script = Script::new(fenced!(
    "for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], ARGV[3])) do
         for i = 1, #consumer, 2 do
             if consumer[i] == 'name' then
                 redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[3], consumer[i + 1])
             end
         end
     end
     redis.call('XGROUP', 'SETID', KEYS[2], ARGV[3], ARGV[4])
     return 1"
));

/// Moves a group that has stopped, and fences who was its owner. KEYS lease, stream; ARGV
/// group, the id to go on behind.
pub(super) static RESET: Script = Script::new(
    "redis.call('HDEL', KEYS[1], 'owner')
     redis.call('HINCRBY', KEYS[1], 'generation', 1)
     redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1])
     redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], ARGV[2])
     return 1",
);

/// Publishes and settles as one step. KEYS lease and stream of each source, then the streams
/// that are published to; ARGV member, how many sources, for each its group, generation, count
/// of ids and ids; then for each message the index of its stream among KEYS, how many fields
/// and values, and these.
pub(super) static COMMIT: Script = Script::new(
    "local at, acks = 3, {}
     for source = 1, tonumber(ARGV[2]) do
         local lease, stream = KEYS[2 * source - 1], KEYS[2 * source]
         local group, generation, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
         local held = redis.call('HMGET', lease, 'owner', 'generation')
         if held[1] ~= ARGV[1] or held[2] ~= generation then
             return redis.error_reply('FENCED the lease has another holder')
         end
         for i = at + 3, at + 2 + count do
             local id = ARGV[i]
             if #redis.call('XPENDING', stream, group, id, id, 1, ARGV[1]) == 0 then
                 return redis.error_reply('FENCED the entry ' .. id .. ' is not out')
             end
             acks[#acks + 1] = {stream, group, id}
         end
         at = at + 3 + count
     end
     for i = 2 * ARGV[2] + 1, #KEYS do
         if redis.call('TYPE', KEYS[i]).ok ~= 'stream' then
             return redis.error_reply('MISSING the stream ' .. KEYS[i] .. ' does not exist')
         end
     end
     while at < #ARGV do
         local stream, count = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
         redis.call('XADD', stream, '*', unpack(ARGV, at + 2, at + 1 + count))
         at = at + 2 + count
     end
     for _, ack in ipairs(acks) do redis.call('XACK', unpack(ack)) end
     return 1",
);

/// Looks for the first entry of a time or later. KEYS stream; ARGV the id to begin with, how
/// many to look at, microseconds. Returns the id found, or false and the id to go on behind, or
/// nothing at the end.
pub(super) static FIND_TIME: Script = Script::new(
    "local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
     local wanted = tonumber(ARGV[3])
     for _, entry in ipairs(entries) do
         local time = tonumber(string.match(entry[1], '^%d+')) * 1000
         for i = 1, #entry[2], 2 do
             if entry[2][i] == 'timestamp' then time = tonumber(entry[2][i + 1]) or time end
         end
         if time >= wanted then return {entry[1]} end
     end
     if #entries < tonumber(ARGV[2]) then return {} end
     return {false, entries[#entries][1]}",
);

/// Counts entries. KEYS stream; ARGV the id to begin with, how many at most. Returns the count
/// and the last id.
pub(super) static COUNT_ENTRIES: Script = Script::new(
    "local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
     if #entries == 0 then return {0, '0-0'} end
     return {#entries, entries[#entries][1]}",
);

/// Deletes the oldest entries, but none that a group has not settled. KEYS stream; ARGV how
/// many milliseconds and bytes are kept.
pub(super) static RETAIN: Script = Script::new(
    "local length = redis.call('XLEN', KEYS[1])
     if length == 0 then return 0 end
     local function parts(id)
         local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
         return tonumber(millis), tonumber(sequence)
     end
     local function is_less(a, b)
         local a_millis, a_sequence = parts(a)
         local b_millis, b_sequence = parts(b)
         return a_millis < b_millis or (a_millis == b_millis and a_sequence < b_sequence)
     end
     local time = redis.call('TIME')
     local now = time[1] * 1000 + math.floor(time[2] / 1000)
     local kept = nil
     for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
         local name, last
         for i = 1, #group, 2 do
             if group[i] == 'name' then name = group[i + 1] end
             if group[i] == 'last-delivered-id' then last = group[i + 1] end
         end
         local pending = redis.call('XPENDING', KEYS[1], name)
         local first = pending[1] > 0 and pending[2] or last
         if not kept or is_less(first, kept) then kept = first end
     end
     local deleted = 0
     local old = string.format('%.0f-0', math.max(now - ARGV[1], 0))
     if kept and is_less(kept, old) then old = kept end
     deleted = redis.call('XTRIM', KEYS[1], 'MINID', '~', old)
     local bytes = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
     length = length - deleted
     local excess = math.floor(length * (bytes - ARGV[2]) / math.max(bytes, 1))
     if excess > 0 then
         local bound = kept or '18446744073709551615-0'
         deleted = deleted + redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', excess)
     end
     return deleted",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_the_script_its_keys_and_its_arguments() {
        let script = Script::new("return 1");
        let arguments = |command: &mut Cmd| {
            command.arg("x");
        };
        let packed = |command: Cmd| String::from_utf8(command.get_packed_command()).unwrap();
        let known = packed(script.known(&["a", "b"], &arguments));
        assert!(
            known.contains("EVALSHA") && known.contains("e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
        );
        let whole = packed(script.whole(&["a", "b"], &arguments));
        assert!(whole.contains("EVAL") && whole.contains("return 1"));
        assert!(whole.ends_with("$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nx\r\n"), "{whole}");
    }
}
