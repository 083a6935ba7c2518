/** Who is signed in, and what that one may do. The API decides; this says what is worth offering. */

export const READER = 1;
export const OWNER = 2;
export const ADMIN = 3;
const RANKS = { reader: READER, owner: OWNER, admin: ADMIN };

export class Session {
  constructor({ name, grants }) {
    this.name = name;
    this.grants = grants;
  }

  may(role, volumeId) {
    return this.grants.some(
      (grant) => RANKS[grant.role] >= role && (grant.volume_id === null || grant.volume_id === volumeId),
    );
  }
}
