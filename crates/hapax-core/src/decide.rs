/// x
pub fn decide() {}
/// x
pub struct Decision;
