-- The ledger: one record a job, five atomic steps. Scripts answer facts; what they mean is decided in
-- engine/lifecycle.py. Times are milliseconds of this Redis's clock; no other clock is compared with it.
--
-- dispatcher:job:<id>           hash, the record. TTL 24 h beyond its lease; a reported one 1 h, a dead one 7 days
--   v                           1; fields are only ever added, so that two releases read each other's records
--   type client region          the reference: <Owner>.<Category>.<Provider>.<version>; no client if custom
--   state                       queued -> running -> finished -> reported
--   owner                       host/task id/random part of one delivery
--   attempt                     begins so far: the fence
--   deaths                      begins in a row whose owner was gone before it acknowledged
--   starts retries              of the handler; Retries asked for
--   ack                         no | presumed | sure
--   nonce                       a custom job's, from its newest offer
--   tried                       nonces that were begun with while the newest offer was fresh, newest last
--   offered                     when AWS answered the newest offer, at the earliest
--   publish_at poll             when an offer may publish again; the poll that published last
--   lease                       its end, or when a Retry is due
--   deadline                    of the handler
--   verdict finished            what AWS is to be told, and since when
--   dead                        1: AWS will not take it
--   begun                       begin's answer, for its replay
--   percent note                what the handler last said
--   since pipeline              when it was first offered; whose it is, as JSON: for people
--   outcome told                of a reported or dead one: how it ended, and what AWS was told, without a token
-- dispatcher:job:<id>:timeline  list of [time, event, detail], the newest 40
-- dispatcher:index:<provider>   zset of jobs that somebody works on, scored by when somebody must look
-- dispatcher:resting:<provider> zset alike, of those that wait for a time: they take no slot
-- dispatcher:waiting:<provider> zset for people: on offer and nobody's, scored by the newest offer; 24 h
-- dispatcher:dead:<provider>    zset for people: dead letters, scored by when they became so; 8 days
-- dispatcher:paused             set of providers
-- dispatcher:history            list of finished jobs, newest first, at most 10,000, 7 days
-- dispatcher:counts             hash: what the fleet has counted so far, see metrics.py; 30 days
-- dispatcher:sweep              hash: the last sweep, and until when sweeps see nothing
--
-- Keys are built here from the job's id, so this needs one Redis with replicas, not a Redis Cluster.

local DAY = 86400000
local args = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function record_key(job) return 'dispatcher:job:' .. job end

local function provider(type) return string.match(type, '^[^.]+%.[^.]+%.([^.]+)') end

local function index_key(type) return 'dispatcher:index:' .. provider(type) end

local function resting_key(type) return 'dispatcher:resting:' .. provider(type) end

-- What is not as it must be, for an alarm: each a key, and why.
local damaged = {}

local function reply(answer)
  if #damaged > 0 then answer.damaged = damaged end
  return cjson.encode(answer)
end

-- Whether a key holds what it should, or nothing. What it holds else is left to an operator.
local function usable(key, kind)
  local found = redis.call('TYPE', key).ok
  if found == 'none' or found == kind then return true end
  damaged[#damaged + 1] = {key, 'is a ' .. found .. ', not a ' .. kind}
  return false
end

-- What processes have counted since their last call rides on this one, and must not cost it: a full Redis
-- refuses the first of them, which leaves the step to be judged by its own first write.
local function count(counts)
  for name, by in pairs(counts) do
    local added = redis.pcall('HINCRBY', 'dispatcher:counts', name, string.format('%.0f', by))
    if type(added) == 'table' and string.find(added.err, 'OOM', 1, true) then return end
  end
  redis.call('PEXPIRE', 'dispatcher:counts', 30 * DAY)
end

if args.counts and usable('dispatcher:counts', 'hash') then count(args.counts) end

local STATES = {queued = true, running = true, finished = true, reported = true}
local ACKS = {no = true, presumed = true, sure = true}
local NUMBERS = {'attempt', 'deaths', 'starts', 'retries', 'publish_at', 'lease'}

local function wrong_with(r)
  if r.v ~= '1' then return 'has a version that this release does not know' end
  if not (r.type and provider(r.type) and r.region) then return 'names no action type or region' end
  if not STATES[r.state] then return 'has an unknown state' end
  if not ACKS[r.ack or 'no'] then return 'has an unknown ack' end
  for _, name in ipairs({'offered', 'finished', 'deadline', unpack(NUMBERS)}) do
    if r[name] and not string.match(r[name], '^-?%d+$') then return 'has no number as its ' .. name end
  end
  for _, name in ipairs({'tried', 'begun'}) do -- a verdict is not for Lua to read
    local ok, value = pcall(cjson.decode, r[name] or '{}')
    if not (ok and type(value) == 'table') then return 'has no JSON as its ' .. name end
  end
  for _, name in ipairs({'type', 'client', 'region', 'owner', 'nonce', 'verdict'}) do
    if string.find(r[name] or '', '[\128-\255]') then return 'has bytes in its ' .. name .. ' that are no text' end
  end
  if (r.state == 'running' or r.state == 'finished') and not r.owner then return 'has no owner' end
  return nil
end

-- The record, or nil. What cannot be read is no record that is not there: false, and nobody acts on it.
local function read(job)
  local key = record_key(job)
  if not usable(key, 'hash') then return false end
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local r = {}
  for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
  local wrong = wrong_with(r)
  if wrong then
    damaged[#damaged + 1] = {key, wrong}
    return false, r.v and r.v ~= '1'
  end
  for _, name in ipairs(NUMBERS) do r[name] = tonumber(r[name]) or 0 end
  r.ack = r.ack or 'no'
  return r
end

-- The same for who holds the job: who is sure of its acknowledgement makes a damaged record anew.
local function read_mine(job, claim)
  local r, newer = read(job)
  if r == false and claim.ack == 'sure' and not newer then
    redis.call('DEL', record_key(job))
    return nil
  end
  return r
end

local function write(job, fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = type(value) == 'number' and string.format('%.0f', value) or tostring(value)
  end
  redis.call('HSET', record_key(job), unpack(flat))
end

local function keep(job, ttl)
  redis.call('PEXPIRE', record_key(job), ttl)
  redis.call('PEXPIRE', record_key(job) .. ':timeline', ttl)
end

local function note(job, event, detail)
  local key = record_key(job) .. ':timeline'
  if not usable(key, 'list') then return end
  redis.call('RPUSH', key, cjson.encode({now, event, detail or ''}))
  redis.call('LTRIM', key, -40, -1)
  -- The list may be younger than the record's last `keep`.
  redis.call('PEXPIRE', key, redis.call('PTTL', record_key(job)))
end

local function indexed(type)
  local index, resting = usable(index_key(type), 'zset'), usable(resting_key(type), 'zset')
  return index and resting
end

-- Lists for people: nothing is decided by them.
local LISTED = {waiting = DAY, dead = 8 * DAY}

local function list(kind, job, type)
  local key = 'dispatcher:' .. kind .. ':' .. provider(type)
  if not usable(key, 'zset') then return end
  redis.call('ZADD', key, string.format('%.0f', now), job)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - LISTED[kind]))
  redis.call('PEXPIRE', key, LISTED[kind])
end

local function unlist(job, type)
  for kind in pairs(LISTED) do
    local key = 'dispatcher:' .. kind .. ':' .. provider(type)
    if usable(key, 'zset') then redis.call('ZREM', key, job) end
  end
end

-- Whether there are indexes that the job could be in.
local function unlook(job, type)
  unlist(job, type)
  if not indexed(type) then return false end
  redis.call('ZREM', index_key(type), job)
  redis.call('ZREM', resting_key(type), job)
  return true
end

-- Somebody must look at `at`: the record's lease, except that a sweep moves only the score.
local function look(job, type, at, rests)
  local key = rests and resting_key(type) or index_key(type)
  if not unlook(job, type) then return end
  redis.call('ZADD', key, string.format('%.0f', at), job)
  redis.call('PEXPIRE', key, 8 * DAY)
end

local function lease_until(job, type, at, rests)
  write(job, {lease = at})
  look(job, type, at, rests)
  keep(job, math.max(at - now, 0) + DAY)
end

local function reference(of)
  return {v = 1, type = of.type, client = of.client, region = of.region}
end

local function host(owner) return string.match(owner, '^[^/]*') end

-- The guard of heartbeat, verdict and again: mine; nobody's; or I am sure that this fleet acknowledged through
-- me, the record is not, and it is not ahead of me (a failover lost what I had written).
local function may_write(r, claim)
  if not r then return 'absent' end
  if r.owner == claim.owner and (r.state == 'running' or r.state == 'finished') then return 'mine' end
  local outranks = claim.ack == 'sure' and r.ack ~= 'sure' and r.attempt <= claim.attempt
  if outranks and r.state ~= 'reported' then return 'outranks' end
  return nil
end

local function facts(job, r)
  return {
    job = job, type = r.type, client = r.client, region = r.region,
    ack = r.ack, waits = r.state == 'queued', verdict = r.verdict ~= nil,
  }
end

--- offer: {poll, asked, fresh, offers = {{job, type, client, region, nonce}}} -> {jobs to publish}
local publish = {}

local function must_publish(r)
  if not r then return true end
  if r.ack ~= 'no' or r.state == 'reported' or r.dead or r.publish_at > now then return false end
  return r.state == 'queued' or r.lease <= now
end

local function offered(offer, r)
  if not r then
    local fields = reference(offer)
    fields.state, fields.ack, fields.since = 'queued', 'no', now
    write(offer.job, fields)
    keep(offer.job, DAY)
  end
  if not r or (r.state == 'queued' and r.ack == 'no') then list('waiting', offer.job, offer.type) end
  if not r or r.state ~= 'reported' then
    write(offer.job, {offered = math.max(r and tonumber(r.offered) or 0, math.min(args.asked, now))})
    if offer.nonce then write(offer.job, {nonce = offer.nonce}) end
  end
  if r and r.poll == args.poll then
    publish[#publish + 1] = offer.job
  elseif must_publish(r) then
    publish[#publish + 1] = offer.job
    write(offer.job, {poll = args.poll, publish_at = now + args.fresh * (r and 2 or 1)})
    note(offer.job, r and 'offered again' or 'offered')
  end
end

for _, offer in ipairs(args.offers) do
  local r = read(offer.job)
  if r ~= false then offered(offer, r) end
end
return reply({jobs = publish})

--- begin: {job, type, client, region, owner, nonce, only = {how = true}, pipeline, window, fresh} -> {how, ...} or {drop}
local function drop(why) return reply({drop = why}) end

local function answer(text, r)
  local begun = cjson.decode(text)
  begun.age = now - (begun.offered or 0)
  begun.verdict_age = now - (tonumber(r.finished) or now)
  return reply(begun)
end

local function how_to_begin(r)
  if r.dead then return nil, 'a dead letter' end
  if r.state == 'reported' then return nil, 'reported' end
  local paused = 'dispatcher:paused'
  if r.ack == 'no' and usable(paused, 'set') and redis.call('SISMEMBER', paused, provider(r.type)) == 1 then
    return nil, 'paused'
  end
  local waits = r.state ~= 'queued' or r.ack ~= 'no'
  if waits and r.lease > now then return nil, r.state == 'queued' and 'not yet due' or 'leased' end
  if r.verdict then return 'send' end
  if r.state == 'queued' then return r.ack == 'no' and 'fresh' or 'again' end
  return r.ack == 'no' and 'inherited' or 'acked'
end

local function tried_with(r, nonce, offered)
  local tried = r.tried and cjson.decode(r.tried) or {}
  if not nonce or now - offered >= args.fresh then return tried end
  for _, known in ipairs(tried) do
    if known == nonce then return tried end
  end
  tried[#tried + 1] = nonce
  if #tried > 8 then table.remove(tried, 1) end
  return tried
end

local r = read(args.job)
if r == false then return drop('its record is damaged') end
if not r then return drop('no record') end
if r.type ~= args.type or r.client ~= args.client or r.region ~= args.region then return drop('another job') end
if r.owner == args.owner and r.begun and (r.state == 'running' or r.state == 'finished') then return answer(r.begun, r) end

local how, why = how_to_begin(r)
if not how then return drop(why) end
if args.only and (r.ack == 'no' or not args.only[how]) then return drop('not for settle') end
if not indexed(r.type) then return drop('no sweep would find it') end

local calls = r.ack == 'no'
local offered = tonumber(r.offered) or 0
local nonce = calls and (args.nonce or r.nonce) or nil
local deaths = how == 'inherited' and math.min(r.deaths + 1, 2) or 0
local begun = cjson.encode({
  how = how, attempt = r.attempt + 1, starts = r.starts, retries = r.retries, deaths = deaths, ack = r.ack,
  offered = offered, nonce = nonce, tried = calls and r.tried or nil, verdict = r.verdict,
})
local fields = {
  state = r.verdict and 'finished' or 'running', owner = args.owner, attempt = r.attempt + 1, deaths = deaths,
  begun = begun, pipeline = args.pipeline,
}
if calls then
  local tried = tried_with(r, nonce, offered)
  if #tried > 0 then fields.tried = cjson.encode(tried) end
end
redis.call('HDEL', record_key(args.job), 'deadline', 'percent', 'note')
write(args.job, fields)
lease_until(args.job, r.type, now + args.window)
note(args.job, 'begun', how .. ' by ' .. host(args.owner))
return answer(begun, r)

--- heartbeat: {lease, beats = {{job, owner, attempt, type, client, region, ack, starts, retries, left, ...}}} -> {lost owners}
local lost = {}

local function renew(beat)
  local r = read_mine(beat.job, beat)
  if r == false then return false end
  local right = may_write(r, beat)
  if not right then return false end
  if right == 'mine' and r.dead then return true end
  if right == 'mine' and r.state == 'finished' then
    if r.starts ~= beat.starts then return false end -- a verdict came before this first heartbeat
    write(beat.job, {ack = beat.ack})
    lease_until(beat.job, r.type, now + args.lease)
    return true
  end
  -- Without `left` no handler runs yet, and there is no deadline.
  local deadline = right == 'mine' and tonumber(r.deadline) or beat.left and now + beat.left
  if deadline and now >= deadline then return false end
  local fields = reference(beat)
  fields.state, fields.owner, fields.attempt, fields.ack = 'running', beat.owner, beat.attempt, beat.ack
  fields.starts, fields.retries, fields.deaths, fields.deadline = beat.starts, beat.retries, 0, deadline
  fields.percent, fields.note = beat.percent, beat.note
  if right == 'outranks' then redis.call('HDEL', record_key(beat.job), 'verdict', 'finished', 'begun', 'dead', 'deadline') end
  write(beat.job, fields)
  lease_until(beat.job, beat.type, now + args.lease)
  if right ~= 'mine' or r.starts ~= beat.starts then note(beat.job, 'started', 'on ' .. host(beat.owner)) end
  return true
end

for _, beat in ipairs(args.beats) do
  if not renew(beat) then lost[#lost + 1] = beat.owner end
end
return reply({lost = lost})

--- finish: {job, owner, attempt, type, client, region, ack, starts, retries, lease, arm, ...} -> {ok, facts}
local r = read_mine(args.job, args)
if r == false then return reply({ok = false}) end
local mine = r and r.owner == args.owner and (r.state == 'running' or r.state == 'finished')
local key = record_key(args.job)

-- An operator acts on what nobody holds, such as a dead letter, and leaves what is known of it. His verdict
-- may end what is acknowledged and still runs: its owner learns from the next heartbeat that it is not his any
-- more, as after a time limit. A verdict that is stored stands, unless AWS has refused it.
local function overruled()
  if not r or r.state == 'reported' then return false end
  if r.dead then return true end
  if args.arm == 'verdict' then return r.ack ~= 'no' and r.state ~= 'finished' end
  return r.lease <= now or (r.state == 'queued' and r.ack ~= 'no')
end

if args.operator then
  if not overruled() then return reply({ok = false}) end
  for _, name in ipairs({'attempt', 'ack', 'starts', 'retries'}) do args[name] = r[name] end
end

-- Written by `verdict` and `again`, whose guard may re-create or take over the record.
local function rewrite(state, more)
  local fields = reference(args)
  fields.state, fields.owner, fields.attempt, fields.ack = state, args.owner, args.attempt, args.ack
  fields.starts, fields.retries, fields.deaths = args.starts, args.retries, 0
  redis.call('HDEL', key, 'verdict', 'finished', 'deadline', 'tried', 'dead')
  for name, value in pairs(more) do fields[name] = value end
  write(args.job, fields)
end

local function ended(outcome)
  if not usable('dispatcher:history', 'list') then return end
  redis.call('LPUSH', 'dispatcher:history', cjson.encode({
    at = now, job = args.job, type = r.type, client = r.client, region = r.region, outcome = outcome,
    attempt = r.attempt, worker = r.owner and host(r.owner), since = r.since, pipeline = r.pipeline,
    message = args.message,
  }))
  redis.call('LTRIM', 'dispatcher:history', 0, 9999)
  redis.call('PEXPIRE', 'dispatcher:history', 7 * DAY)
end

local arms = {}

function arms.verdict()
  if mine and r.state == 'finished' then return r.verdict == args.verdict end
  if not args.operator and not may_write(r, args) then return false end
  rewrite('finished', {verdict = args.verdict, finished = now})
  lease_until(args.job, args.type, args.operator and now or now + args.lease)
  note(args.job, 'finished', args.outcome)
  return true
end

function arms.again()
  if r and r.owner == args.owner and r.state == 'queued' and r.ack ~= 'no' then return true end
  if mine and r.state == 'finished' then return false end
  if not may_write(r, args) then return false end
  rewrite('queued', {})
  lease_until(args.job, args.type, now + args.after, true)
  note(args.job, 'to be run again', string.format('in %.0f s: %s', args.after / 1000, args.why))
  return true
end

function arms.park()
  if r and r.state == 'queued' and r.ack == 'no' then
    write(args.job, {publish_at = 0}) -- nobody's already
    note(args.job, 'parked', args.why)
    return true
  end
  if not mine then return false end
  redis.call('HDEL', key, 'tried', 'deadline', 'dead')
  if args.forget then redis.call('HDEL', key, 'verdict', 'finished') end
  write(args.job, {state = 'queued', ack = 'no', deaths = 0, publish_at = 0, lease = 0})
  unlook(args.job, r.type)
  list('waiting', args.job, r.type)
  keep(args.job, DAY)
  note(args.job, 'parked', args.why)
  return true
end

function arms.release()
  local held = r and (r.state == 'running' or r.state == 'finished')
  local rests = r and args.operator and r.state == 'queued' and r.ack ~= 'no'
  local theirs = held and not r.dead and args.owner ~= '' and string.sub(r.owner, 1, #args.owner) == args.owner
  if not theirs and not (held and args.operator) and not rests then return false end
  redis.call('HDEL', key, 'dead')
  if r.owner == args.owner then write(args.job, {deaths = 0}) end -- it lives, and gives the job back
  lease_until(args.job, r.type, now + args.after, args.after > 0 or rests)
  note(args.job, 'released', args.why)
  return true
end

function arms.dead()
  if mine and r.dead then return true end
  if not mine and not args.operator then return false end
  write(args.job, {dead = 1, outcome = 'dead', told = args.told})
  unlook(args.job, r.type)
  list('dead', args.job, r.type)
  keep(args.job, 7 * DAY)
  note(args.job, 'dead letter', args.why)
  ended('dead')
  return true
end

function arms.done()
  if r and r.owner == args.owner and r.state == 'reported' then return true end
  if not r or r.state == 'reported' then return args.accepted end
  if not mine and not args.accepted then return false end
  redis.call('HDEL', key, 'nonce', 'tried', 'verdict', 'begun', 'deadline', 'note', 'poll', 'dead')
  write(args.job, {state = 'reported', owner = args.owner, outcome = args.outcome, told = args.told})
  unlook(args.job, r.type)
  keep(args.job, DAY / 24)
  note(args.job, 'reported', args.outcome)
  ended(args.outcome)
  return true
end

local ok = arms[args.arm]()
return reply({ok = ok, facts = ok and r and facts(args.job, r) or nil})

--- due: {types = {provider = {type = true}}, limit, fresh, lease, sweep} -> {jobs = {facts}}
local overdue = {}
if not usable('dispatcher:sweep', 'hash') then redis.call('DEL', 'dispatcher:sweep') end
local seen = redis.call('HMGET', 'dispatcher:sweep', 'last', 'blind')
local last, blind = tonumber(seen[1]), math.min(tonumber(seen[2]) or 0, now + args.lease / 2)

-- After Redis or the fleet stood still every lease looks over: let the living renew theirs first.
if not last or last > now or now - last > 3 * args.sweep then blind = now + args.lease / 2 end
redis.call('HSET', 'dispatcher:sweep', 'last', string.format('%.0f', now), 'blind', string.format('%.0f', blind))
redis.call('PEXPIRE', 'dispatcher:sweep', math.max(DAY, 6 * args.sweep))
if now < blind then return reply({jobs = overdue}) end

-- A type that the asker does not know is left for a worker that does. Ten times as many are looked at as are
-- asked for: so many jobs that nobody serves any more hide no others.
local function sweep(zset, types, rests)
  if not usable(zset, 'zset') then return end
  local left = args.limit
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', zset, '-inf', now, 'LIMIT', 0, 10 * args.limit)) do
    if left == 0 then return end
    local r = read(job)
    if r == false then
      redis.call('ZADD', zset, string.format('%.0f', now + args.fresh), job)
    elseif not r or r.state == 'reported' or (r.state == 'queued' and r.ack == 'no') then
      redis.call('ZREM', zset, job)
    elseif types[r.type] then
      look(job, r.type, now + args.fresh, rests)
      overdue[#overdue + 1] = facts(job, r)
      left = left - 1
    end
  end
end

for name, types in pairs(args.types) do
  sweep('dispatcher:index:' .. name, types, false)
  sweep('dispatcher:resting:' .. name, types, true)
end
return reply({jobs = overdue})
