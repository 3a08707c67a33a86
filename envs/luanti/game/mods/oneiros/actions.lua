-- The protocol's actions that have no key: each happens at once or, where something is missing, not at all.

local inventory = oneiros.inventory
local REACH = 4
local NEARBY = 4

local function near(player, name)
	return minetest.find_node_near(vector.round(player:get_pos()), NEARBY, name, true) ~= nil
end

-- `grid`: nine kinds, row by row, "" for an empty place. The engine's own recipe decides what comes out.
local function craft(player, grid, expected, table_needed)
	if table_needed and not near(player, "oneiros:crafting_table") then
		return
	end
	local counts, taken, items = inventory.counts(player), {}, {}
	for place, kind in ipairs(grid) do
		local name = ""
		if kind ~= "" then
			name = inventory.choose(counts, kind, taken)
			if not name then
				return
			end
		end
		items[place] = ItemStack(name)
	end
	local made = minetest.get_craft_result({method = "normal", width = 3, items = items}).item
	local held = player:get_inventory()
	if table.indexof(inventory.kinds[expected], made:get_name()) < 0 then
		return
	end
	for name, count in pairs(taken) do
		held:remove_item("main", name .. " " .. count)
	end
	local left = held:add_item("main", made)
	if not left:is_empty() then
		minetest.add_item(player:get_pos(), left)
	end
end

-- Fuel burns on while nothing is smelted with it: what is left of it counts for the next ingot.
local burning = 0
local FUELS = {"default:coal_lump", "planks", "log", "stick"}

local function take_fuel(player, seconds)
	local held = player:get_inventory()
	while burning < seconds do
		local found
		for _, fuel in ipairs(FUELS) do
			for _, name in ipairs(inventory.kinds[fuel] or {fuel}) do
				found = found or (held:contains_item("main", name) and name)
			end
		end
		if not found then
			return false
		end
		held:remove_item("main", found)
		local burnt = minetest.get_craft_result({method = "fuel", width = 1, items = {ItemStack(found)}})
		burning = burning + burnt.time
	end
	burning = burning - seconds
	return true
end

local function smelt(player, kind, expected)
	if not near(player, "default:furnace") then
		return
	end
	local name = inventory.choose(inventory.counts(player), kind, {})
	if not name then
		return
	end
	local made = minetest.get_craft_result({method = "cooking", width = 1, items = {ItemStack(name)}})
	if made.item:get_name() ~= inventory.kinds[expected][1] or not take_fuel(player, made.time) then
		return
	end
	player:get_inventory():remove_item("main", name)
	player:get_inventory():add_item("main", made.item)
end

-- Whether the box of a node at `position` would stand in the player.
local function inside(player, position)
	local feet = player:get_pos()
	return math.abs(position.x - feet.x) < 0.8 and math.abs(position.z - feet.z) < 0.8
		and position.y > feet.y - 0.5 and position.y < feet.y + 2.2
end

local function place(player, kind)
	local name = inventory.choose(inventory.counts(player), kind, {})
	if not name then
		return
	end
	local eye = vector.offset(player:get_pos(), 0, player:get_properties().eye_height, 0)
	local far = vector.add(eye, vector.multiply(player:get_look_dir(), REACH))
	local pointed = minetest.raycast(eye, far, false, false):next()
	if not pointed then
		return
	end
	local under = minetest.registered_nodes[minetest.get_node(pointed.under).name]
	local target = under and under.buildable_to and pointed.under or pointed.above
	local definition = minetest.registered_nodes[name]
	if definition.walkable and inside(player, target) then
		return
	end
	local _, placed = minetest.item_place_node(ItemStack(name), player, pointed)
	if placed then
		player:get_inventory():remove_item("main", name)
	end
end

local P, S, C, I, O = "planks", "stick", "cobblestone", "iron_ingot", ""
local commands = {
	[1] = function(player) place(player, "dirt") end,
	[2] = function(player) craft(player, {"log", O, O, O, O, O, O, O, O}, "planks") end,
	[3] = function(player) craft(player, {P, O, O, O, O, O, O, O, O}, "stick") end,
	[4] = function(player) craft(player, {P, P, O, P, P, O, O, O, O}, "crafting_table") end,
	[5] = function(player) place(player, "crafting_table") end,
	[6] = function(player) craft(player, {P, P, P, O, S, O, O, S, O}, "wooden_pickaxe", true) end,
	[7] = function(player) craft(player, {C, C, C, O, S, O, O, S, O}, "stone_pickaxe", true) end,
	[8] = function(player) craft(player, {I, I, I, O, S, O, O, S, O}, "iron_pickaxe", true) end,
	[9] = function(player) inventory.equip(player, "stone_pickaxe") end,
	[10] = function(player) inventory.equip(player, "wooden_pickaxe") end,
	[11] = function(player) inventory.equip(player, "iron_pickaxe") end,
	[12] = function(player) craft(player, {C, C, C, C, O, C, C, C, C}, "furnace", true) end,
	[13] = function(player) place(player, "furnace") end,
	[14] = function(player) smelt(player, "iron_ore", "iron_ingot") end,
}

function oneiros.act(player, command)
	if command ~= 0 and player:get_hp() > 0 then
		commands[command](player)
	end
end
