"""What Redis does for `generations.py`, each in one step that nothing comes between."""

from lostwax.kit.redis_server import Script

# Each script starts with these. A record is `generation run_id floor built_at`. KEYS: the current record, the record of
# what is being built. ARGV[1]: the run id, ARGV[2]: the prefix of all keys.
_COMMON = """
local function record(key)
    local text = redis.call('GET', key)
    if not text then return nil end
    local name, run, floor = string.match(text, '^(%S+) (%S+) (%S+)')
    if run ~= ARGV[1] then return nil end
    return {name = name, floor = floor, text = text, at = ARGV[2] .. ':' .. name .. ':'}
end
"""

# ARGV[3]: the one generation to fill, or '' for all in force. Then five for each entry: id, rank, places, body, seconds
# to keep it (0: until the generation goes). Places are `list=member` with spaces between. An entry is kept as
# `rank places\\nbody`. Returns how many generations took it, -1 when the one to fill is not being built any more.
PUSH = Script(
    _COMMON
    + """
local takers, filling = {}, ARGV[3] ~= ''
local building = record(KEYS[2])
if filling then
    if not building or building.name ~= ARGV[3] then return -1 end
    takers[1] = building
else
    takers[1] = record(KEYS[1])
    takers[#takers + 1] = building
end
for i = 4, #ARGV, 5 do
    local id, rank, places, body, keep = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    for _, taker in ipairs(takers) do
        if filling or id >= taker.floor then
            local key = taker.at .. 'e:' .. id
            local old_rank, old = string.match(redis.call('GETRANGE', key, 0, 255), '^(%d+) ([^\\n]*)\\n')
            if not old_rank or tonumber(old_rank) < tonumber(rank) then
                if old ~= places then
                    for list, member in string.gmatch(old or '', '(%S+)=(%S+)') do
                        redis.call('ZREM', taker.at .. 'l:' .. list, member)
                    end
                    for list, member in string.gmatch(places, '(%S+)=(%S+)') do
                        redis.call('ZADD', taker.at .. 'l:' .. list, 0, member)
                    end
                end
                if keep == '0' then redis.call('SET', key, rank .. ' ' .. places .. '\\n' .. body)
                else redis.call('SET', key, rank .. ' ' .. places .. '\\n' .. body, 'EX', keep) end
            end
        end
    end
end
return #takers
"""
)

# ARGV: list, the member to start after ('': at the beginning), how many, '1' for the last members first, a list and
# a member that it may have. Returns false when there is no generation to believe in; else its floor, whether that
# member is there, and the bodies.
PAGE = Script(
    _COMMON
    + """
local current = record(KEYS[1])
if not current then return false end
local list, after, members = current.at .. 'l:' .. ARGV[3], ARGV[4]
if ARGV[6] == '1' then
    members = redis.call('ZREVRANGEBYLEX', list, after == '' and '+' or '(' .. after, '-', 'LIMIT', 0, ARGV[5])
else
    members = redis.call('ZRANGEBYLEX', list, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, ARGV[5])
end
local marked = ARGV[7] ~= '' and redis.call('ZSCORE', current.at .. 'l:' .. ARGV[7], ARGV[8])
local found = {current.floor, marked and 1 or 0}
for _, member in ipairs(members) do
    local entry = redis.call('GET', current.at .. 'e:' .. string.sub(member, -36))
    if not entry then -- somebody has taken pieces out: the rest is not to be believed either
        redis.call('DEL', KEYS[1])
        return false
    end
    found[#found + 1] = string.sub(entry, string.find(entry, '\\n', 1, true) + 1)
end
return found
"""
)

# ARGV[3]: id of an entry. Returns false, or whether there is a generation to believe in, and the entry.
ENTRY = Script(
    _COMMON
    + """
local current = record(KEYS[1])
if not current then return false end
return {1, redis.call('GET', current.at .. 'e:' .. ARGV[3])}
"""
)

# ARGV[3]: the record of what is to be built. Returns nothing of use.
BEGIN = Script("redis.call('SET', KEYS[2], ARGV[3] .. ' ' .. ARGV[1] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]) return 1")

# ARGV[3]: the generation that has been built. Returns 0 when it is not there any more.
SWAP = Script(
    _COMMON
    + """
local building = record(KEYS[2])
if not building or building.name ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], building.text)
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""
)

# ARGV[3]: the generation that will not be finished.
ABANDON = Script(
    _COMMON
    + """
local building = record(KEYS[2])
if building and building.name == ARGV[3] then redis.call('DEL', KEYS[2], KEYS[3]) end
return 1
"""
)

# KEYS[3]: progress of the rebuild. ARGV[3]: what it is from now on ('': as it is). Returns the records and the
# progress.
LOOK = Script(
    _COMMON
    + """
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'EX', 60) end
local current, building = record(KEYS[1]), record(KEYS[2])
return {current and current.text or '', building and building.text or '', redis.call('GET', KEYS[3]) or ''}
"""
)

# One step of dropping what belongs to no generation in force. ARGV[3]: SCAN's cursor. Returns the next one.
SWEEP = Script(
    _COMMON
    + """
local found = redis.call('SCAN', ARGV[3], 'MATCH', ARGV[2] .. ':*', 'COUNT', 500)
local current, building = record(KEYS[1]), record(KEYS[2])
for _, key in ipairs(found[2]) do
    local keep = key == KEYS[1] or key == KEYS[2] or key == KEYS[3]
    if current and string.sub(key, 1, #current.at) == current.at then keep = true end
    if building and string.sub(key, 1, #building.at) == building.at then keep = true end
    if not keep then redis.call('UNLINK', key) end
end
return found[1]
"""
)

ALL = (PUSH, PAGE, ENTRY, BEGIN, SWAP, ABANDON, LOOK, SWEEP)
