-- MAT for Wireshark and tshark, 4.0 and newer: messages, IMS records, MUOs, and who is behind a mobile
-- address. Copy it into the folder of personal Lua plugins; docs/wireshark.md says where that is.
--
-- Theory of operation. `mat` dissects the messages of docs/protocol.md, sections 3 to 6, and judges
-- them as the section says: `mat.malformed` has the reason why a receiver would drop one. `mat_muo`
-- looks at every packet once more, when all else has been dissected: for IMS records in answers of the
-- DNS (section 7), for MUOs (11.5), and for mobile addresses that a message has named before.
--
-- What is learnt of the conversation is kept by frame number: Wireshark dissects packets again, in any
-- order, whenever they are looked at, and a packet must then look as it did the first time. Of each
-- mobile address there is a history, so that what an address means is what it meant at that packet.
--
-- A first pass may go without fields of other protocols, which here say where and which way a packet
-- passed. So requests and answers are related in the first pass that has them. In Wireshark a listener
-- with a filter sees to it that this is the one that loads the file.

local PORT = "49628"
local IMS_RECORD_TYPE = 65338
local MUO_TYPE, MUO_SIZE = 0x1E, 24
local MUO_DATA = MUO_SIZE - 4
local HEADER, ADDRESS, WORD = 8, 16, 4
local LONGEST, MOST_ADDRESSES, EXACT, SKIPPABLE = 1232, 8, 128, 128
local LAST_DRAFT_TYPE = 4
local IPV4_PREFIX = string.rep("\0", 10) .. "\255\255"

local TYPES = {
  [1] = "IMS Update", [2] = "IMS Update Reply", [3] = "MA Query", [4] = "MA Answer",
  [5] = "HA Notify", [6] = "HA Notify Ack", [7] = "HA Query", [8] = "HA Answer",
}
local CODES = {
  [0] = "succeeded", [1] = "authentication failed", [2] = "no mapping exists", [3] = "stale",
  [4] = "not responsible", [5] = "unacceptable", [6] = "try again",
}
local NONCE, VERSION, PREFIX, PADDING, AUTHENTICATION = 1, 2, 3, 4, 5
local EXTENSIONS = {
  [NONCE] = "nonce", [VERSION] = "version", [PREFIX] = "prefix", [PADDING] = "padding",
  [AUTHENTICATION] = "authentication",
}
local SIZES = { [NONCE] = 12, [VERSION] = 16, [PREFIX] = 4, [AUTHENTICATION] = 32 }
local KINDS = { [1] = "IPv4 addresses", [2] = "IPv6 addresses", [3] = "name" }

-- Of which addresses and words each type's body consists; `n` stands for any number of addresses.
local BODIES = {
  [1] = { "hoa", "moa", n = true, "timestamp", "lifetime" },
  [2] = {},
  [3] = { "hoa", "timestamp" },
  [4] = { "hoa", "moa", n = true, "timestamp", "lifetime" },
  [5] = { "hoa", "peer", "timestamp" },
  [6] = { "hoa", "moa", n = true, "timestamp", "lifetime" },
  [7] = { "moa", "zero" },
  [8] = { "moa", "hoa", n = true, "timestamp", "lifetime" },
}

local WHY = {
  short = "shorter than the header",
  long = "longer than any message",
  type = "unknown type",
  length = "Length and the size of the datagram disagree",
  body = "Length does not fit the body of this type",
  addresses = "more addresses than a mapping holds",
  extension = "extension cut off, of impossible length, repeated or out of place",
  unknown_extension = "unknown extension that must be understood",
  prefix = "prefix length over 128, or the prefix has host bits",
  timestamp = "timestamp at odds with the version or the freshness",
}

local mat = Proto("mat", "MAT, IP mobility by address translation")
local post = Proto("mat_muo", "MAT: options, records and mobile addresses")

local f = {
  type = ProtoField.uint8("mat.type", "Type", base.DEC, TYPES),
  code = ProtoField.uint8("mat.code", "Code", base.DEC, CODES),
  flags = ProtoField.uint8("mat.flags", "Flags", base.HEX),
  x = ProtoField.bool("mat.flags.extensions", "Extensions follow", 8, nil, 0x80),
  length = ProtoField.uint8("mat.length", "Length", base.DEC, nil, nil, "Header and body, in 32-bit words"),
  sequence = ProtoField.uint32("mat.sequence", "Sequence", base.HEX),
  hoa = ProtoField.string("mat.hoa", "HoA"),
  moa = ProtoField.string("mat.moa", "MoA"),
  peer = ProtoField.string("mat.peer", "HoA of the CN"),
  timestamp = ProtoField.uint32("mat.timestamp", "Timestamp", base.DEC, nil, nil, "Upper half of the version"),
  lifetime = ProtoField.uint32("mat.lifetime", "Lifetime", base.DEC, nil, nil, "Seconds"),
  zero = ProtoField.uint32("mat.zero", "Zero", base.DEC),
  extension = ProtoField.uint8("mat.extension.type", "Extension", base.DEC, EXTENSIONS),
  words = ProtoField.uint8("mat.extension.length", "Length", base.DEC, nil, nil, "32-bit words"),
  data = ProtoField.bytes("mat.extension.data", "Data"),
  nonce = ProtoField.bytes("mat.nonce", "Nonce"),
  version = ProtoField.uint64("mat.version", "Version", base.HEX),
  age = ProtoField.uint32("mat.age", "Age", base.DEC, nil, nil, "Milliseconds since the mapping was accepted"),
  prefix = ProtoField.uint8("mat.prefix_length", "Prefix length", base.DEC),
  padding = ProtoField.bytes("mat.padding", "Padding"),
  key_id = ProtoField.uint32("mat.auth.key_id", "Key id", base.DEC),
  freshness = ProtoField.uint64("mat.auth.freshness", "Freshness", base.HEX),
  mac = ProtoField.bytes("mat.auth.mac", "MAC"),
  draft = ProtoField.bool("mat.draft_length", "Length leaves out the header"),
  malformed = ProtoField.string("mat.malformed", "Malformed"),
  response_in = ProtoField.framenum("mat.response_in", "Response in", base.NONE, frametype.RESPONSE),
  response_to = ProtoField.framenum("mat.response_to", "Response to", base.NONE, frametype.REQUEST),
  response_time = ProtoField.relative_time("mat.response_time", "Time since the request"),
  again = ProtoField.framenum("mat.retransmission_of", "Retransmission of", base.NONE, frametype.RETRANS_PREV),
  node = ProtoField.string("mat.node", "HoA of a node that this packet concerns"),
}
-- The same addresses once more, hidden, for filters by prefix: mat.moa.ipv4 == 10.128.0.0/16.
for name, called in pairs({ hoa = "HoA", moa = "MoA", peer = "HoA of the CN" }) do
  f[name .. "4"] = ProtoField.ipv4("mat." .. name .. ".ipv4", called)
  f[name .. "6"] = ProtoField.ipv6("mat." .. name .. ".ipv6", called)
end
local p = {
  source = ProtoField.string("mat.source_hoa", "HoA of the source"),
  destination = ProtoField.string("mat.destination_hoa", "HoA of the destination"),
  muo = ProtoField.string("mat.muo.hoa", "HoA"),
  muo_flags = ProtoField.uint16("mat.muo.flags", "Flags", base.HEX),
  muo_malformed = ProtoField.string("mat.muo.malformed", "Malformed"),
  precedence = ProtoField.uint8("mat.ims.precedence", "Precedence", base.DEC),
  kind = ProtoField.uint8("mat.ims.kind", "Kind", base.DEC, KINDS),
  port = ProtoField.uint16("mat.ims.port", "Port", base.DEC),
  address = ProtoField.string("mat.ims.address", "Address"),
  name = ProtoField.string("mat.ims.name", "Name"),
  record_malformed = ProtoField.string("mat.ims.malformed", "Malformed"),
}
local e = {
  malformed = ProtoExpert.new("mat.expert.malformed", "A receiver drops this", expert.group.MALFORMED, expert.severity.ERROR),
  cut = ProtoExpert.new("mat.expert.cut", "Cut off by the capture", expert.group.UNDECODED, expert.severity.WARN),
  code = ProtoExpert.new("mat.expert.code", "The answer is no success", expert.group.RESPONSE_CODE, expert.severity.NOTE),
  unknown_code = ProtoExpert.new("mat.expert.unknown_code", "Unknown code", expert.group.UNDECODED, expert.severity.WARN),
  unknown = ProtoExpert.new("mat.expert.unknown_extension", "Unknown extension, skipped", expert.group.UNDECODED, expert.severity.CHAT),
  again = ProtoExpert.new("mat.expert.retransmission", "Retransmission", expert.group.SEQUENCE, expert.severity.NOTE),
}
local pe = {
  malformed = ProtoExpert.new("mat.expert.muo", "The MUO or IMS record cannot be read", expert.group.MALFORMED, expert.severity.ERROR),
}
local function listed(of)
  local list = {}
  for _, one in pairs(of) do list[#list + 1] = one end
  return list
end
mat.fields, mat.experts = listed(f), listed(e)
post.fields, post.experts = listed(p), listed(pe)

mat.prefs.ports = Pref.range("UDP ports", PORT, "Ports of IMS and nodes; an IMS record may name another.", 65535)

-- Fields of others that are looked at.
local ip_source, ip_destination = Field.new("ip.src"), Field.new("ip.dst")
local ip6_source, ip6_destination = Field.new("ipv6.src"), Field.new("ipv6.dst")
local option_data, record_data = Field.new("ipv6.opt.experimental"), Field.new("dns.data")
local interface, direction = Field.new("frame.interface_id"), Field.new("frame.packet_flags_direction")

-- ---- addresses: strings of 16 bytes, IPv4 as IPv4-mapped, as in messages -------------------------------

local function is_ipv4(address) return address:sub(1, 12) == IPV4_PREFIX end

-- As RFC 5952 writes it: the longest run of zeros, the first of equals, is left out.
local function ipv6_text(address)
  local groups, best, longest = {}, 0, 1
  for i = 1, 8 do groups[i] = address:byte(2 * i - 1) * 256 + address:byte(2 * i) end
  local i = 1
  while i <= 8 do
    local after = i
    while after <= 8 and groups[after] == 0 do after = after + 1 end
    if after - i > longest then best, longest = i, after - i end
    i = math.max(after, i + 1)
  end
  local left, right = {}, {}
  for at = 1, 8 do
    if best == 0 or at < best then left[#left + 1] = string.format("%x", groups[at])
    elseif at >= best + longest then right[#right + 1] = string.format("%x", groups[at]) end
  end
  if best == 0 then return table.concat(left, ":") end
  return table.concat(left, ":") .. "::" .. table.concat(right, ":")
end

local function text(address)
  if is_ipv4(address) then return string.format("%d.%d.%d.%d", address:byte(13, 16)) end
  return ipv6_text(address)
end

-- What Wireshark calls an address: a name if it resolves names and knows one, else the address.
local function shown(address)
  local written = text(address)
  return tostring(is_ipv4(address) and Address.ip(written) or Address.ipv6(written))
end

local function masked(address, length)
  if length == EXACT then return address end
  local bytes = math.floor(length / 8)
  local rest = length % 8
  local kept = address:sub(1, bytes)
  if rest > 0 then
    local step = 2 ^ (8 - rest)
    kept = kept .. string.char(math.floor(math.floor(address:byte(bytes + 1) / step) * step))
  end
  return kept .. string.rep("\0", ADDRESS - #kept)
end

local function first_address(four, six)
  local found = four()
  if found then return IPV4_PREFIX .. found.range:raw() end
  found = six()
  return found and found.range:raw() or nil
end

-- ---- what the conversation has told ----------------------------------------------------------------------

local histories   -- of mobile addresses and MoPres, by prefix length and bits: lists of { frame, home }
local lengths     -- the prefix lengths that there are, longest first
local requests    -- the last transmission of each request
local links       -- what belongs together, by frame
local seen        -- frames that were looked at with all fields there

local function forget()
  histories, lengths, requests, links, seen = {}, {}, {}, {}, {}
end
forget()
mat.init = forget

-- From this frame on, a mobile address (or MoPre) belongs to a home address (or prefix).
local function learn(frame, mobile, home, length)
  if mobile == home then return end
  if not histories[length] then
    histories[length] = {}
    lengths[#lengths + 1] = length
    table.sort(lengths, function(one, other) return one > other end)
  end
  local bits = masked(mobile, length)
  local history = histories[length][bits] or {}
  histories[length][bits] = history
  local at = #history
  while at > 0 and history[at][1] > frame do at = at - 1 end
  if at == 0 or history[at][2] ~= home then table.insert(history, at + 1, { frame, home }) end
end

-- Whose a mobile address was at this frame; nil if nobody had said so.
local function home_of(frame, mobile)
  for _, length in ipairs(lengths) do
    local history = histories[length][masked(mobile, length)]
    if history then
      for i = #history, 1, -1 do
        if history[i][1] <= frame then
          local home = history[i][2]
          if length == EXACT then return home end
          return (home:gsub("()(.)", function(at, byte)
            -- The host's bits are those of the mobile address.
            local bits = length - 8 * (at - 1)
            if bits >= 8 then return byte end
            local own = mobile:byte(at)
            if bits <= 0 then return string.char(own) end
            local step = math.floor(2 ^ (8 - bits))
            return string.char(math.floor(byte:byte() / step) * step + own % step)
          end))
        end
      end
    end
  end
end

local function remember(pinfo, message)
  if message.kind % 2 == 0 and message.code ~= 0 then return end
  for _, one in ipairs(message.moa) do
    for _, home in ipairs(message.hoa) do learn(pinfo.number, one, home, message.prefix) end
  end
end

-- Finds for a request the one before it, and for an answer its request. Each place where packets were
-- recorded is one for itself, for what leaves one host arrives at another.
local function relate(pinfo, message, source, destination)
  local where, way = interface(), direction()
  local place = where and where.value or ""
  local number, link = pinfo.number, {}
  local from = source .. "/" .. pinfo.src_port
  local to = destination .. "/" .. pinfo.dst_port
  if message.kind % 2 == 1 then
    local what = message.kind .. "/" .. message.sequence
    local sent = table.concat({ "sent", place, way and way.value or "", from, what }, "/")
    link.again, requests[sent] = requests[sent], number
    requests[table.concat({ place, from, to, what }, "/")] = { number, pinfo.rel_ts }
  else
    local what = (message.kind - 1) .. "/" .. message.sequence
    local request = requests[table.concat({ place, to, from, what }, "/")]
    if request then
      link.to, link.time = request[1], pinfo.rel_ts - request[2]
      links[request[1]].answer = links[request[1]].answer or number
    end
  end
  links[number] = link
end

-- ---- messages --------------------------------------------------------------------------------------------

-- The extensions from `at` on: a list, what they say, and why they cannot be read, if so.
local function read_extensions(tvb, at, size)
  local found, said, seen = {}, { prefix = EXACT }, {}
  while at < size do
    if size - at < WORD then return found, said, WHY.extension end
    if at + 2 > tvb:len() then return found, said, nil, true end
    local kind, bytes = tvb(at, 1):uint(), tvb(at + 1, 1):uint() * WORD
    if bytes == 0 or at + bytes > size or seen[kind] then return found, said, WHY.extension end
    if at + bytes > tvb:len() then return found, said, nil, true end
    seen[kind] = true
    found[#found + 1] = { kind = kind, at = at, size = bytes }
    local right = SIZES[kind] == bytes
    if kind == AUTHENTICATION and at + bytes ~= size then right = false end
    if right then
      said[kind] = at
      if kind == PREFIX then
        said.prefix = tvb(at + 2, 1):uint()
        if said.prefix > EXACT then return found, said, WHY.prefix end
      end
    elseif kind ~= PADDING and kind < SKIPPABLE then
      return found, said, EXTENSIONS[kind] and WHY.extension or WHY.unknown_extension
    end
    at = at + bytes
  end
  return found, said
end

-- What the addresses and words of a body are, and where: a list, and why it is none.
local function read_body(kind, first, last)
  local shape, parts = BODIES[kind], {}
  local fixed, words = 0, 0
  for i, name in ipairs(shape) do
    local is_address = name == "hoa" or name == "moa" or name == "peer"
    if is_address and not (shape.n and i == 2) then fixed = fixed + ADDRESS end
    if not is_address then words = words + WORD end
  end
  local rest = last - first - fixed - words
  local count = rest / ADDRESS
  if rest < 0 or (not shape.n and rest ~= 0) or rest % ADDRESS ~= 0 then return parts, WHY.body end
  if count > MOST_ADDRESSES then return parts, WHY.addresses end
  local at = first
  for i, name in ipairs(shape) do
    local times, size = 1, ADDRESS
    if shape.n and i == 2 then times = count end
    if name == "timestamp" or name == "lifetime" or name == "zero" then size = WORD end
    for _ = 1, times do
      parts[#parts + 1] = { name = name, at = at, size = size }
      at = at + size
    end
  end
  return parts
end

-- Why the prefix or the version does not go with the body, if so.
local function contradiction(tvb, kind, parts, said)
  local version, timestamp = said[VERSION], nil
  if kind == 1 and said[AUTHENTICATION] and not (version and tvb(version + 4, 8):raw() ~= string.rep("\0", 8)) then
    version = said[AUTHENTICATION] + 4
  end
  for _, part in ipairs(parts) do
    if part.name == "timestamp" then timestamp = part.at end
    local checked = part.name == "hoa" or part.name == "moa"
    if checked and kind ~= 3 and kind ~= 7 then
      local address = tvb(part.at, ADDRESS):raw()
      if masked(address, kind == 8 and EXACT or said.prefix) ~= address then return WHY.prefix end
    end
  end
  if not timestamp or not version or kind == 7 then return end
  if tvb(version + 4, 8):raw() ~= string.rep("\0", 8) and tvb(version + 4, 4):raw() ~= tvb(timestamp, 4):raw() then
    return WHY.timestamp
  end
end

local function add_address(tree, name, range)
  local address = range:raw()
  local written, called = text(address), shown(address)
  local item = tree:add(f[name], range, written)
  if called ~= written then item:append_text(" (" .. called .. ")") end
  if is_ipv4(address) then tree:add(f[name .. "4"], range(12, 4)):set_hidden()
  else tree:add(f[name .. "6"], range):set_hidden() end
  return address
end

local function add_body(tree, tvb, parts, message)
  for _, part in ipairs(parts) do
    if part.at + part.size > tvb:len() then return true end
    local range = tvb(part.at, part.size)
    if part.size == ADDRESS then
      local list = message[part.name]
      list[#list + 1] = add_address(tree, part.name, range)
    else
      local item = tree:add(f[part.name], range)
      local value = range:uint()
      if part.name == "timestamp" and value > 1e9 then item:append_text(" (" .. os.date("!%Y-%m-%d %H:%M:%S", value) .. " UTC)") end
      if part.name == "lifetime" then item:append_text(" s"); message.lifetime = value end
    end
  end
end

local function add_extension(tree, tvb, one)
  local range = tvb(one.at, one.size)
  local name = EXTENSIONS[one.kind] or ("unknown, " .. one.kind)
  local item = tree:add(mat, range, "Extension: " .. name)
  item:add(f.extension, range(0, 1))
  item:add(f.words, range(1, 1))
  local right = SIZES[one.kind] == one.size
  if one.kind == NONCE and right then
    item:add(f.nonce, range(4, 8))
  elseif one.kind == VERSION and right then
    item:add(f.version, range(4, 8))
    item:add(f.age, range(12, 4)):append_text(" ms")
  elseif one.kind == PREFIX and right then
    item:add(f.prefix, range(2, 1))
  elseif one.kind == AUTHENTICATION and right then
    item:add(f.key_id, range(4, 4))
    item:add(f.freshness, range(8, 8))
    item:add(f.mac, range(16, 16))
  elseif one.kind == PADDING then
    if one.size > 2 then item:add(f.padding, range(2)) end
  else
    if one.size > 2 then item:add(f.data, range(2)) end
    if one.kind >= SKIPPABLE then item:add_proto_expert_info(e.unknown) end
  end
end

local function add_links(tree, number)
  local link = links[number]
  if not link then return end
  if link.answer then tree:add(f.response_in, link.answer):set_generated() end
  if link.to then
    tree:add(f.response_to, link.to):set_generated()
    local seconds = math.floor(link.time)
    local rest = math.floor((link.time - seconds) * 1e9 + 0.5)
    tree:add(f.response_time, NSTime.new(seconds, rest)):set_generated()
  end
  if link.again then
    local item = tree:add(f.again, link.again)
    item:set_generated()
    item:add_proto_expert_info(e.again)
  end
end

-- What the list of packets says of a message.
local function summary(message)
  local said = TYPES[message.kind]
  local function names(list)
    local called = {}
    for i, one in ipairs(list) do called[i] = shown(one) end
    return table.concat(called, ", ")
  end
  if message.kind % 2 == 0 and message.code ~= 0 then
    said = said .. " (" .. (CODES[message.code] or ("code " .. message.code)) .. ")"
  end
  local key, others = message.hoa, message.moa
  if message.kind >= 7 then key, others = message.moa, message.hoa end
  if #key > 0 then said = said .. " " .. names(key) end
  if message.prefix ~= EXACT then said = said .. "/" .. message.prefix end
  if #others > 0 then said = said .. " at " .. names(others) end
  if #message.peer > 0 then said = said .. " to " .. names(message.peer) end
  return said
end

local function refuse(tree, pinfo, reason)
  local item = tree:add(f.malformed, reason)
  item:set_generated()
  item:add_proto_expert_info(e.malformed, "A receiver drops this: " .. reason)
  pinfo.cols.info:append(" [malformed: " .. reason .. "]")
end

local function add_header(tree, tvb, message)
  local kind, code = tvb(0, 1):uint(), tvb(1, 1):uint()
  tree:add(f.type, tvb(0, 1))
  local item = tree:add(f.code, tvb(1, 1))
  if kind % 2 == 0 and TYPES[kind] and code ~= 0 then
    if CODES[code] then item:add_proto_expert_info(e.code, "The answer says: " .. CODES[code])
    else item:add_proto_expert_info(e.unknown_code) end
  end
  tree:add(f.flags, tvb(2, 1)):add(f.x, tvb(2, 1))
  tree:add(f.length, tvb(3, 1)):append_text(" words")
  tree:add(f.sequence, tvb(4, 4))
  message.kind, message.code, message.sequence = kind, code, tvb(4, 4):uint()
end

-- Where the body ends, whether Length leaves out the header, and why it is wrong, if so.
local function body_end(tvb, kind, size)
  local counted, follow = tvb(3, 1):uint() * WORD, tvb(2, 1):uint() >= 0x80
  if follow then
    if counted < HEADER or counted > size then return counted, false, WHY.length end
    return counted, false
  end
  if counted == size then return size, false end
  local draft = kind <= LAST_DRAFT_TYPE and counted + HEADER == size
  return size, draft, not draft and WHY.length or nil
end

local function add_message(tree, tvb, pinfo, message, size)
  add_header(tree, tvb, message)
  local kind = message.kind
  if size > LONGEST then return WHY.long end
  if not TYPES[kind] then return WHY.type end
  local last, draft, reason = body_end(tvb, kind, size)
  if reason then return reason end
  local found, said, cut = {}, { prefix = EXACT }, nil
  if last < size then found, said, reason, cut = read_extensions(tvb, last, size) end
  message.prefix = said.prefix
  local parts, wrong = read_body(kind, HEADER, last)
  cut = add_body(tree, tvb, parts, message) or cut
  for _, one in ipairs(found) do add_extension(tree, tvb, one) end
  if draft then tree:add(f.draft, true):set_generated() end
  if cut then return nil, true end
  return reason or wrong or contradiction(tvb, kind, parts, said)
end

function mat.dissector(tvb, pinfo, root)
  local size = tvb:reported_len()
  pinfo.cols.protocol = "MAT"
  pinfo.cols.info = "MAT"
  local tree = root:add(mat, tvb())
  if size < HEADER then
    refuse(tree, pinfo, WHY.short)
    return tvb:len()
  end
  if tvb:len() < HEADER then
    tree:add_proto_expert_info(e.cut)
    return tvb:len()
  end
  local message = { hoa = {}, moa = {}, peer = {}, prefix = EXACT }
  local reason, cut = add_message(tree, tvb, pinfo, message, size)
  if TYPES[message.kind] then
    pinfo.cols.info = summary(message)
    tree:append_text(", " .. TYPES[message.kind])
  end
  if cut or tvb:len() < size then tree:add_proto_expert_info(e.cut) end
  if reason then
    refuse(tree, pinfo, reason)
  elseif not cut then
    if not pinfo.visited then remember(pinfo, message) end
    local source = first_address(ip_source, ip6_source)
    local destination = first_address(ip_destination, ip6_destination)
    if source and destination and not seen[pinfo.number] then
      seen[pinfo.number] = true
      relate(pinfo, message, source, destination)
    end
    for _, list in ipairs({ message.hoa, message.peer }) do
      for _, home in ipairs(list) do tree:add(f.node, text(home)):set_hidden() end
    end
  end
  add_links(tree, pinfo.number)
  return tvb:len()
end

local udp, added = DissectorTable.get("udp.port"), nil
local function listen()
  if added then udp:remove(added, mat) end
  added = mat.prefs.ports
  udp:add(added, mat)
end
listen()
mat.prefs_changed = listen

-- ---- what is in other packets ------------------------------------------------------------------------------

-- A MUO stands alone in a header of its own; another identifier is another experiment.
local function add_muo(tree, found, pinfo, source)
  local range = found.range
  if range:len() < 2 or range(0, 2):string() ~= "MA" or found.source(found.offset - 2, 1):uint() ~= MUO_TYPE then return end
  local item = tree:add(post, range, "Mapping Update Option")
  local alone = found.source(found.offset - 3, 1):uint() == MUO_SIZE / 8 - 1
  local home = range:len() == MUO_DATA and range(4, ADDRESS):raw() or nil
  if not alone or not home or is_ipv4(home) then
    item:add(p.muo_malformed, "wrong length, in company, or with an IPv4 HoA"):set_generated()
    item:add_proto_expert_info(pe.malformed)
    return
  end
  item:add(p.muo_flags, range(2, 2))
  local written, called = text(home), shown(home)
  local added_home = item:add(p.muo, range(4, ADDRESS), written)
  if called ~= written then added_home:append_text(" (" .. called .. ")") end
  item:append_text(": " .. called)
  learn(pinfo.number, source, home, EXACT)
end

-- A DNS name in a record: labels to its end, without pointers; nil if it is none.
local function name_of(range)
  local labels, at = {}, 0
  while at < range:len() and range(at, 1):uint() > 0 do
    local size = range(at, 1):uint()
    if size > 63 or at + 1 + size >= range:len() then return end
    local label = range(at + 1, size):raw()
    if label:find("[^!-~]") or label:find(".", 1, true) then return end
    labels[#labels + 1] = label
    at = at + 1 + size
  end
  if #labels == 0 or at + 1 ~= range:len() or range:len() > 255 then return end
  return table.concat(labels, ".") .. "."
end

-- Adds where the IMS is; what is wrong with it, if so.
local function add_where(item, kind, range)
  if not range then return "it has no address" end
  if kind == 3 then
    local name = name_of(range)
    if not name then return "its name cannot be read" end
    item:add(p.name, range, name)
    return
  end
  local size = ({ 4, ADDRESS })[kind]
  if not size then return "kind " .. kind .. " is unknown" end
  if range:len() % size ~= 0 or range:len() > MOST_ADDRESSES * size then return "its length fits no addresses" end
  for at = 0, range:len() - size, size do
    local address = range(at, size):raw()
    if size == 4 then address = IPV4_PREFIX .. address
    elseif is_ipv4(address) then return "an IPv4 address of kind 2" end
    local written, called = text(address), shown(address)
    local added_address = item:add(p.address, range(at, size), written)
    if called ~= written then added_address:append_text(" (" .. called .. ")") end
  end
end

local function add_record(tree, found)
  local range = found.range
  -- Before the data of a record stand its type, class, lifetime and length, ten bytes.
  if found.offset < 10 or found.source(found.offset - 10, 2):uint() ~= IMS_RECORD_TYPE then return end
  local item = tree:add(post, range, "IMS record")
  local wrong = range:len() < 4 and "shorter than its head" or nil
  if not wrong then
    item:add(p.precedence, range(0, 1))
    item:add(p.kind, range(1, 1))
    item:add(p.port, range(2, 2))
    if range(2, 2):uint() == 0 then wrong = "port 0" end
    wrong = wrong or add_where(item, range(1, 1):uint(), range:len() > 4 and range(4) or nil)
  end
  if wrong then
    item:add(p.record_malformed, wrong):set_generated()
    item:add_proto_expert_info(pe.malformed)
  end
end

local function add_home(tree, field, home)
  local written, called = text(home), shown(home)
  local item = tree:add(field, written)
  item:set_generated()
  if called ~= written then item:append_text(" (" .. called .. ")") end
  tree:add(f.node, written):set_hidden()
end

function post.dissector(_, pinfo, root)
  local source = first_address(ip_source, ip6_source)
  if not source then return end
  local is_option, is_record = option_data(), record_data()
  local tree = (is_option or is_record) and root:add(post) or nil
  if is_option then
    for _, found in ipairs({ option_data() }) do add_muo(tree, found, pinfo, source) end
  end
  if is_record then
    for _, found in ipairs({ record_data() }) do add_record(tree, found) end
  end
  if #lengths == 0 then return end
  local destination = first_address(ip_destination, ip6_destination)
  local from, to = home_of(pinfo.number, source), destination and home_of(pinfo.number, destination)
  if not from and not to then return end
  tree = tree or root:add(post)
  if from then add_home(tree, p.source, from) end
  if to then add_home(tree, p.destination, to) end
end

register_postdissector(post)
if gui_enabled() then Listener.new(nil, "mat") end
