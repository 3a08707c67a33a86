-- Answers questions about the world, for scripted players: where something is, never how to get it.

local enabled = minetest.settings:get_bool("oneiros_oracle", false)
local questions = {}

-- The nodes of these names or groups in the box around the player, `radius` nodes each way, nearest first.
function questions.find(player, question)
	local middle = vector.round(player:get_pos())
	local reach = vector.new(question.radius, question.height or question.radius, question.radius)
	local found = minetest.find_nodes_in_area(vector.subtract(middle, reach), vector.add(middle, reach), question.names)
	table.sort(found, function(a, b)
		return vector.distance(a, middle) < vector.distance(b, middle)
	end)
	local places = {}
	for index = 1, math.min(#found, question.most or 16) do
		places[index] = {found[index].x, found[index].y, found[index].z}
	end
	return places
end

-- What one can do with each node of a box, a letter each, x fastest, then y, then z.
local letters = {}

local function letter(name)
	local definition = minetest.registered_nodes[name]
	if not definition or name == "ignore" then
		return "?"
	end
	local groups = definition.groups
	if (groups.lava or 0) > 0 or (definition.damage_per_second or 0) > 0 then
		return "!"
	elseif definition.liquidtype ~= "none" then
		return "~"
	elseif not definition.walkable or name == "default:snow" then
		return name == "air" and "." or "," -- a plant, a layer of snow: in the way of blows, not of feet
	elseif (groups.falling_node or 0) > 0 then
		return "f"
	elseif (groups.crumbly or 0) >= 2 or (groups.snappy or 0) == 3 or (groups.oddly_breakable_by_hand or 0) > 0 then
		return "h"
	elseif (groups.cracky or 0) == 3 and (groups.level or 0) == 0 then
		return "w"
	elseif (groups.cracky or 0) == 2 and (groups.level or 0) == 0 then
		return "s"
	elseif (groups.cracky or 0) == 1 and (groups.level or 0) <= 2 then
		return "i"
	end
	return "#"
end

function questions.terrain(_, question)
	local from, to, found = question.from, question.to, {}
	for z = from[3], to[3] do
		for y = from[2], to[2] do
			for x = from[1], to[1] do
				local name = minetest.get_node({x = x, y = y, z = z}).name
				letters[name] = letters[name] or letter(name)
				found[#found + 1] = letters[name]
			end
		end
	end
	return table.concat(found)
end

-- Every registered item.
function questions.items()
	local names = {}
	for name in pairs(minetest.registered_items) do
		names[#names + 1] = name
	end
	table.sort(names)
	return names
end

-- How many seconds each tool takes for each node, by the engine's own reckoning; false where it cannot dig it at all.
function questions.digging(_, question)
	local seconds = {}
	for i, tool in ipairs(question.tools) do
		seconds[i] = {}
		for j, name in ipairs(question.nodes) do
			local groups = minetest.registered_nodes[name].groups
			local params = minetest.get_dig_params(groups, ItemStack(tool):get_tool_capabilities())
			if not params.diggable then -- as the engine does, with the hand that holds it
				params = minetest.get_dig_params(groups, ItemStack(""):get_tool_capabilities())
			end
			seconds[i][j] = params.diggable and params.time or false
		end
	end
	return seconds
end

-- What of hunger is not observed, too.
function questions.hunger()
	local hunger = oneiros.hunger
	return {food = hunger.food, saturation = hunger.saturation, exhaustion = hunger.exhaustion}
end

function oneiros.answer(player)
	local shared = oneiros.memory.shared
	if shared.request == shared.answer then
		return
	end
	assert(enabled, "the oracle is off")
	local question = minetest.parse_json(oneiros.memory.request())
	oneiros.memory.answer(minetest.write_json({questions[question.ask](player, question)}))
end
