-- One step of the game's half: the command, hunger, then everything that the driver observes.

local shared = oneiros.memory.shared
local places = {}
do
	local count = 0
	for line in io.lines(minetest.get_modpath("oneiros") .. "/items.txt") do
		for name in line:gmatch("%S+") do
			if name ~= "=" then
				places[name] = count
			end
		end
		count = count + 1
	end
	assert(count <= 512)
end

local died = false
minetest.register_on_dieplayer(function()
	died = true
end)

local steps, filled = 0, {}

local function observe(player)
	local state, position, velocity = shared.state, player:get_pos(), player:get_velocity()
	state[0], state[1], state[2] = position.x, position.y, position.z
	state[3], state[4] = player:get_look_horizontal(), player:get_look_vertical()
	state[5], state[6] = player:get_hp(), oneiros.hunger.food
	state[7], state[8] = player:get_breath(), player:get_properties().breath_max
	state[9], state[10] = died and 1 or 0, steps
	state[11], state[12] = minetest.get_timeofday(), places[player:get_wielded_item():get_name()] or -1
	state[13] = minetest.get_node_light(vector.round(vector.offset(position, 0, 1, 0))) or -1
	state[14] = velocity.y
	for place in pairs(filled) do
		shared.inventory[place] = 0
	end
	filled = {}
	for name, count in pairs(oneiros.inventory.counts(player)) do
		local place = places[name]
		if place then
			shared.inventory[place] = shared.inventory[place] + count
			filled[place] = true
		end
	end
end

minetest.register_globalstep(function(seconds)
	steps = steps + 1
	local player = minetest.get_connected_players()[1]
	if not player then
		return
	end
	if shared.phase == 2 then
		oneiros.act(player, shared.command)
		oneiros.hunger.step(player, seconds)
		oneiros.answer(player)
	end
	observe(player)
end)
