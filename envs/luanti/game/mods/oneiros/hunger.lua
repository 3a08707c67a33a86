-- Hunger, as the protocol's game has it: work exhausts, exhaustion uses up saturation and then food; with enough food
-- wounds heal, without any they open. No action of the protocol eats.

local hunger = {food = 20, saturation = 5, exhaustion = 0, timer = 0}
oneiros.hunger = hunger

local WALKING, JUMPING, DIGGING, HEALING, WOUND = 0.01, 0.05, 0.005, 3.0, 0.1
local last, rising

function hunger.exhaust(amount)
	hunger.exhaustion = hunger.exhaustion + amount
	while hunger.exhaustion >= 4 do
		hunger.exhaustion = hunger.exhaustion - 4
		if hunger.saturation > 0 then
			hunger.saturation = math.max(0, hunger.saturation - 1)
		else
			hunger.food = math.max(0, hunger.food - 1)
		end
	end
end

minetest.register_on_dignode(function()
	hunger.exhaust(DIGGING)
end)

minetest.register_on_player_hpchange(function(_, change)
	if change < 0 then
		hunger.exhaust(WOUND)
	end
end)

function hunger.step(player, seconds)
	local position = player:get_pos()
	if last then
		hunger.exhaust(WALKING * math.hypot(position.x - last.x, position.z - last.z))
		local up = player:get_velocity().y > 3
		if up and not rising then
			hunger.exhaust(JUMPING)
		end
		rising = up
	end
	last = position
	hunger.timer = hunger.timer + seconds
	if hunger.timer < 4 then
		return
	end
	hunger.timer = 0
	local health = player:get_hp()
	if hunger.food >= 18 and health > 0 and health < 20 then
		player:set_hp(health + 1)
		hunger.exhaust(HEALING)
	elseif hunger.food == 0 and health > 1 then
		player:set_hp(health - 1)
	end
end
