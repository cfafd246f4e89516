"""What calls cost: API list prices, and the economics, energy and carbon of own hardware."""
