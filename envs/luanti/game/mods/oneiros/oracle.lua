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

-- The names of the nodes of a box, x fastest, then y, then z.
function questions.box(_, question)
	local from, to, names = question.from, question.to, {}
	for z = from[3], to[3] do
		for y = from[2], to[2] do
			for x = from[1], to[1] do
				names[#names + 1] = minetest.get_node({x = x, y = y, z = z}).name
			end
		end
	end
	return names
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

function oneiros.answer(player)
	local shared = oneiros.memory.shared
	if shared.request == shared.answer then
		return
	end
	assert(enabled, "the oracle is off")
	local question = minetest.parse_json(oneiros.memory.request())
	oneiros.memory.answer(minetest.write_json({questions[question.ask](player, question)}))
end
