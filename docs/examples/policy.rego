package agent_policy

default AllowRequestsFailingPolicy := true
