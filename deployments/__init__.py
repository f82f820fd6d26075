"""What surrounds the flows: the machines they run on and the packages these need."""
